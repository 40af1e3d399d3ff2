"""Command line: make a data set of partial observations and complete vertebrae, the same from the same options."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from usx_common.errors import UsxError
from usx_common.processes import one_thread_pool
from usx_completion.data.crop import RULES
from usx_completion.data.dataset import Dataset, from_samples
from usx_completion.data.examination import Examination, LevelSample, examine, in_observed_frame, level_samples
from usx_completion.data.presets import PRESETS, DropRules, SampleSettings, preset_named
from usx_completion.data.spine_sample import SpineSample, centred
from usx_completion.data.spine_source import (
    FIRST_TEST_SEED,
    KEPT,
    SourceChoice,
    SpineSource,
    mean_chain_of,
    open_source,
)
from usx_completion.data.splits import NAMES, parse_fractions, split_in_turn, split_subjects
from usx_completion.data.storage import DatasetWriter, copy_split
from usx_completion.data.xray_cloud import CloudSizes

DESCRIPTION = """Make training data: for every vertebra the part that ultrasound shows of it, the body that a lateral
X-ray shows, and the complete surface, as one HDF5 file with the keys of US-X Complete. The same options and seed give
the same file, whatever --jobs. Splits are by subject. What the presets do: docs/training-data.md."""
EXAMPLES = """examples:
  make_dataset --out out/train.h5 --spines 1000 --seed 1                    the shape model's spines, preset paper
  make_dataset --out out/hard.h5 --spines 1000 --seed 2 --preset realistic
  make_dataset --out out/real.h5 --spines 4 --source $USX_DATA/shapes       four real people, each once
  make_dataset --out out/own.h5 --spines 300 --deformations 3 --split 80/10/10
"""


@dataclass(frozen=True)
class Task:
    """What one worker needs: where spines come from, how they are observed, and the seed of the observations."""

    source: SourceChoice
    settings: SampleSettings
    seed: int


class Maker:
    """Makes the samples of spine after spine; holds the source and the mean spine."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.source: SpineSource = open_source(task.source)
        self._chain = mean_chain_of(self.source)

    def examined(self, index: int) -> tuple[SpineSample, Examination]:
        """The true spine ``index`` and what was observed of the whole of it, mm, frame spine: along the patient's axes,
        the origin at the mean of the points seen."""
        spine = centred(self.source.sample(index))
        return in_observed_frame(spine, examine(spine, self._task.settings, self._seed(index)))

    def samples(self, index: int) -> list[LevelSample]:
        """Samples of spine ``index``; they depend on the task and the number alone."""
        spine, observed = self.examined(index)
        return level_samples(observed, spine, self._task.settings, self._chain, self._seed(index))

    def _seed(self, index: int) -> int:
        return self._task.seed * 2**32 + index


_maker: Maker | None = None


def _start(task: Task) -> None:
    global _maker
    import cv2

    cv2.setNumThreads(1)
    _maker = Maker(task)


def _make(index: int, split: str) -> Dataset | str:
    assert _maker is not None
    try:
        samples = _maker.samples(index)
    except UsxError as error:  # one odd spine must not cost the others
        return f"spine {index}: {error}"
    if not samples:
        return f"spine {index}: too little was seen of every level"
    return from_samples(samples, [index] * len(samples), [split] * len(samples), _maker.source.faces)


def generate(task: Task, splits: Sequence[str], jobs: int) -> Iterator[Dataset | str]:
    """Parts of a data set, spine by spine in order, made in ``jobs`` processes; a reason where a spine gave none."""
    with one_thread_pool(jobs, _start, (task,)) as pool:
        waiting: deque[Future[Dataset | str]] = deque()
        try:
            for index, split in enumerate(splits):
                waiting.append(pool.submit(_make, index, split))
                if len(waiting) > 4 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser("make_dataset", description=DESCRIPTION, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, metavar="FILE.h5", help="file to write")
    p.add_argument("--spines", type=int, default=100, help="number of spines, up to five samples each (100)")
    p.add_argument("--seed", type=int, default=0,
                   help="chooses the people and all errors, 0 to 1899; the seeds from 1900 on are kept for tests (0)")
    p.add_argument("--preset", choices=sorted(PRESETS), default="paper",
                   help="kind of examination: the paper's recipe, that with the habits of the authors' scripts, or as "
                        "devices behave (paper)")
    p.add_argument("--source", default="real", metavar="real|model|FILE.safetensors|parametric|DIR",
                   help="spines of the shape model of real people, of that of generated spines, of another shape "
                        "model, of the phantom's generator, or of a folder with one sub-folder L1..L5 (.ply, .stl, mm) "
                        "per person (real)")
    p.add_argument("--axes", choices=("RAS", "LPS"), default="RAS", help="axes of a folder's meshes (RAS)")
    p.add_argument("--deformations", type=int, default=1, help="postures of each sampled subject (1)")
    p.add_argument("--crop", choices=RULES, help="box of a level's input (the preset's own rule)")
    p.add_argument("--split", default="60/20/20", metavar="TRAIN/VAL/TEST", help="shares of the subjects (60/20/20)")
    p.add_argument("--split-seed", type=int, default=0,
                   help="chooses who is in which split; one for all files that are used together, whatever --seed (0)")
    p.add_argument("--points", type=int, default=4096, help="points of partial and complete clouds (4096)")
    p.add_argument("--xray-points", type=int, default=4096, help="points of the X-ray's clouds (4096)")
    p.add_argument("--authors-drops", action="store_true",
                   help="leave out what the authors left out: vertebrae larger than a unit (looks at the truth), and "
                        "partial clouds with fewer than --points points")
    p.add_argument("--authors-files", action="store_true",
                   help="also write FILE_train.h5, FILE_val.h5, FILE_test.h5 in the authors' layout alone")
    p.add_argument("--jobs", type=int, default=2, help="processes (2)")
    p.add_argument("--overwrite", action="store_true",
                   help="replace --out, and the files of --authors-files, when they exist")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def checked(options: argparse.Namespace) -> Task:
    """The task of parsed options. Raises UsxError naming the option that makes no sense."""
    bounds = {"spines": (1, 10**6), "seed": (0, 1999), "points": (64, 65536), "xray_points": (64, 65536),
              "jobs": (1, 256), "deformations": (1, 1000), "split_seed": (0, 2**31)}
    for name, (low, high) in bounds.items():
        if not low <= getattr(options, name) <= high:
            raise UsxError(f"--{name.replace('_', '-')} {getattr(options, name)} must be within {low} .. {high}")
    if options.seed >= FIRST_TEST_SEED:
        raise UsxError(f"--seed {options.seed} is of {KEPT}: give one below {FIRST_TEST_SEED}")
    drops = DropRules(oversized=True, sparse=True) if options.authors_drops else None
    settings = SampleSettings(preset_named(options.preset, options.crop), options.points,
                              CloudSizes(options.xray_points), drops)
    choice = SourceChoice(options.source, options.seed, options.deformations, options.axes)
    return Task(choice, settings, options.seed)


def make(options: argparse.Namespace, console: Console) -> None:
    """Make the file of the options. Raises UsxError for bad input, OSError when it cannot be written."""
    targets = {name: options.out.with_name(f"{options.out.stem}_{name}.h5") for name in NAMES}
    for path in (options.out, *(targets.values() if options.authors_files else ())):
        if path.exists() and not options.overwrite:
            raise UsxError(f"{path} exists: give --overwrite or another --out")
    task = checked(options)
    source = open_source(task.source)
    subjects = [source.subject(index) for index in range(options.spines)]
    fractions = parse_fractions(options.split)
    if source.people is None:
        splits = split_in_turn(subjects, fractions, options.split_seed)
    else:
        splits = split_subjects(source.people, fractions, options.split_seed)
    attributes = {"preset": options.preset, "seed": str(options.seed), "source": source.name,
                  "licence": source.licence,
                  "settings": task.settings.text(), "split": options.split, "split_seed": str(options.split_seed),
                  "spines": str(options.spines)}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())
    counts = dict.fromkeys(NAMES, 0)
    reasons: list[str] = []
    with (DatasetWriter(options.out, attributes) as writer,
          Progress(*columns, console=console, disable=options.quiet) as progress):
        bar = progress.add_task("spines", total=options.spines)
        for part in generate(task, [splits[subject] for subject in subjects], min(options.jobs, options.spines)):
            progress.advance(bar)
            if isinstance(part, str):
                reasons.append(part)
                continue
            writer.append(part)
            counts[part.split_name] += len(part)
    made = sum(counts.values())
    console.print(f"{options.out}: {made} samples of {options.spines} spines ({5 * options.spines - made} dropped), "
                  + ", ".join(f"{name} {count}" for name, count in counts.items()), highlight=False)
    if reasons:
        console.print(f"{len(reasons)} spines gave no sample; the first: {reasons[0]}", highlight=False)
    if options.authors_files:
        for name, target in targets.items():
            if counts[name]:
                copy_split(options.out, name, target)
                console.print(f"{target}: authors' layout", highlight=False)
            else:
                target.unlink(missing_ok=True)  # it was another data set's


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 made, 2 bad input (one line on stderr)."""
    options = parser().parse_args(arguments)
    try:
        make(options, Console())
    except (UsxError, OSError, BrokenExecutor) as error:
        print(f"make_dataset: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
