"""Fresh samples without a file: an endless iterator of spines for training."""

from __future__ import annotations

from collections.abc import Iterator

from usx_common.errors import UsxError
from usx_completion.data.examination import Examination, LevelSample
from usx_completion.data.generate import Maker, Task
from usx_completion.data.presets import SampleSettings
from usx_completion.data.spine_sample import SpineSample
from usx_completion.data.spine_source import SourceChoice, SpineSource

MOST_FAILURES = 50


class OnlineSpines:
    """Iterates over spines, each a list of up to five LevelSample (L1 first), never the same twice.

    Deterministic: item number i of a seed is the same in every process. Worker ``worker`` of ``workers`` takes the
    spines worker, worker + workers, ...; so parallel workers share one sequence without overlap. Needs neither torch
    nor a file; every ``iter()`` starts from the beginning, ``first`` moves the beginning (epochs, resumed training).
    Spines that give no sample are passed over; 50 of them on end raise UsxError.
    """

    def __init__(self, seed: int, settings: SampleSettings | None = None, source: SourceChoice | None = None,
                 worker: int = 0, workers: int = 1, first: int = 0) -> None:
        choice = source or SourceChoice(seed=seed)
        self._maker = Maker(Task(choice, settings or SampleSettings(), seed))
        self._worker, self._workers, self._first = worker, workers, first

    @property
    def source(self) -> SpineSource:
        """Where the true spines come from."""
        return self._maker.source

    def spine(self, index: int) -> list[LevelSample]:
        """The samples of spine ``index`` of the sequence, whichever worker asks."""
        return self._maker.samples(index)

    def examined(self, index: int) -> tuple[SpineSample, Examination]:
        """The true spine ``index`` and its whole examination in mm, for models that see all levels at once.

        The origin of its frame is the mean of the points seen; the truth has no part in it. Raises UsxError for a spine
        of which nothing was seen.
        """
        return self._maker.examined(index)

    def __iter__(self) -> Iterator[list[LevelSample]]:
        index, failures = self._first + self._worker, 0
        while True:
            try:
                samples, reason = self.spine(index), "too little was seen of every level"
            except UsxError as error:  # one odd spine must not end a training
                samples, reason = [], str(error)
            failures = 0 if samples else failures + 1
            if failures == MOST_FAILURES:
                raise UsxError(f"{failures} spines on end gave no sample; the last: {reason}")
            if samples:
                yield samples
            index += self._workers
