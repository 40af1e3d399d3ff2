"""All cases through all methods in several processes; what comes out does not depend on how many."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, field
from typing import Any

from usx_common.errors import UsxError
from usx_common.processes import one_thread_pool
from usx_completion.evaluation.case import Case
from usx_completion.evaluation.datasets import CaseSource, DatasetPlan
from usx_completion.evaluation.floors import FloorRow, floors_of
from usx_completion.evaluation.methods import Method, MethodOptions, open_methods
from usx_completion.evaluation.perturb import CONDITIONS, perturbed
from usx_completion.evaluation.scoring import VertebraRow, score, true_surfaces
from usx_completion.evaluation.shape_spread import SpreadRow, spread_of


@dataclass(frozen=True)
class Job:
    """One case of a dataset (its number in the list of plans); ``condition``: how its input is made worse, or "" for
    the input as it is, measured with all metrics."""

    dataset: int
    case: int
    condition: str = ""


@dataclass(frozen=True)
class JobResult:
    """Rows of a job, how its true shapes spread (where vertices correspond), and what else to read figures beside;
    ``reason``: why the spine could not be examined, else empty."""

    job: Job
    rows: list[VertebraRow]
    spread: list[SpreadRow] = field(default_factory=list)
    floor: list[FloorRow] = field(default_factory=list)
    reason: str = ""


class Evaluator:
    """Holds methods and opened datasets, and does job after job."""

    def __init__(self, plans: Sequence[DatasetPlan], methods: Sequence[str], options: MethodOptions | None = None
                 ) -> None:
        self._plans = plans
        self.methods: list[Method] = open_methods(methods, options)[0]
        self._open: dict[int, CaseSource] = {}

    def case(self, job: Job) -> Case:
        """The case of a job, its input as it is."""
        if job.dataset not in self._open:
            self._open[job.dataset] = self._plans[job.dataset].open()
        return self._open[job.dataset].case(job.case)

    def run(self, job: Job) -> JobResult:
        """All methods on a job's case. A simulated spine that cannot be examined costs the others nothing."""
        try:
            case = self.case(job)
        except UsxError as error:
            if self._plans[job.dataset].settings is None:
                raise UsxError(str(error)) from error  # of a kind that comes through between processes
            return JobResult(job, [], reason=str(error))
        worse = perturbed(case, CONDITIONS[job.condition]) if job.condition else case
        surfaces = true_surfaces(worse)
        rows = [row for method in self.methods for row in score(worse, method, surfaces, emd=not job.condition)]
        if job.condition:
            return JobResult(job, rows)
        return JobResult(job, rows, spread_of(case), floors_of(case, surfaces))


_evaluator: Evaluator | None = None


def _start(plans: Sequence[DatasetPlan], methods: Sequence[str], options: MethodOptions) -> None:
    global _evaluator
    import cv2

    cv2.setNumThreads(1)
    _evaluator = Evaluator(plans, methods, options)


def _do(job: Job) -> JobResult:
    assert _evaluator is not None
    return _evaluator.run(job)


@dataclass(frozen=True)
class Work:
    """The datasets, the names of the methods and their options, the jobs and the number of processes."""

    plans: Sequence[DatasetPlan]
    methods: Sequence[str]
    options: MethodOptions
    jobs: Sequence[Job]
    processes: int


def run_jobs(work: Work) -> Iterator[JobResult]:
    """Results in the order of the jobs. Each process has one thread, so that sums do not depend on the machine.

    Raises UsxError for data that cannot be used, and when a process dies.
    """
    arguments: tuple[Any, ...] = (work.plans, work.methods, work.options)
    with one_thread_pool(work.processes, _start, arguments) as pool:
        waiting: deque[Future[JobResult]] = deque(pool.submit(_do, job) for job in work.jobs)
        try:
            while waiting:
                yield waiting.popleft().result()
        except BrokenExecutor as error:
            raise UsxError(f"a process of the evaluation died ({error}); is there enough memory for --jobs "
                           f"{work.processes}?") from error
        finally:
            for future in waiting:
                future.cancel()
