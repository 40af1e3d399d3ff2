"""One method on one case: the rows of per_vertebra.csv."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_completion.completed import CompletedLevel
from usx_completion.evaluation.case import Case
from usx_completion.evaluation.methods import Method, Prediction, shape_of
from usx_completion.metrics import PARTS, PartMetrics, SampledSurface, compare, coverage, sampled

METRICS = ("cd_t_e4", "f1", "emd_e4", "assd_mm", "hd95_mm", "cd_p_e4", "dcd", "normal_consistency",
           "within_sigma", "within_two_sigma")
LEFT_OUT = PartMetrics(*([float("nan")] * len(fields(PartMetrics))))


@dataclass(frozen=True)
class VertebraRow:
    """Metrics of one part of one vertebra by one method; ``note``: why the method left it out, else empty."""

    dataset: str
    case: int
    subject: str
    deformation: int
    level: str
    method: str
    part: str
    unit_mm: float
    metrics: PartMetrics
    note: str = ""

    @property
    def answered(self) -> bool:
        """Whether the method completed this level."""
        return not self.note

    @property
    def vertebra(self) -> tuple[str, int, str]:
        """What pairs methods: dataset, case and level."""
        return self.dataset, self.case, self.level

    def flat(self) -> dict[str, object]:
        """One level of keys, for a CSV file."""
        row = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("metrics", "note")}
        return {**row, **asdict(self.metrics), "note": self.note}


def true_surfaces(case: Case) -> dict[str, SampledSurface]:
    """Level -> true surface with its evaluation points, to be shared by all methods of a case."""
    return {level: SampledSurface.of(case.truth[level]) for level in LEVELS if level in case.truth}


def answer(case: Case, method: Method) -> tuple[Mapping[str, Prediction], str]:
    """What a method says of a case, and the reason when it says nothing. It is given the input alone."""
    try:
        return method.complete(case.given), "not completed"
    except UsxError as error:  # an input that a method refuses is a result too
        return {}, " ".join(str(error).split())


def score(case: Case, method: Method, surfaces: Mapping[str, SampledSurface], emd: bool = True) -> list[VertebraRow]:
    """Rows of every true level and part, L1 first; nan with a note where the method has no answer."""
    predictions, reason = answer(case, method)
    rows = []
    for level, truth in surfaces.items():
        metrics, note = _level(predictions.get(level), truth, case.units[level], emd)
        for part in PARTS:
            rows.append(VertebraRow(case.dataset, case.number, case.subject, case.deformation, level, method.name, part,
                                    case.units[level], metrics.get(part, LEFT_OUT), reason if note is None else note))
    return rows


def _level(prediction: Prediction | None, truth: SampledSurface, unit_mm: float, emd: bool
           ) -> tuple[dict[str, PartMetrics], str | None]:
    if prediction is None:
        return {}, None
    shape = shape_of(prediction)
    try:
        metrics = compare(truth, sampled(shape), unit_mm, emd)
        if isinstance(prediction, CompletedLevel):
            for part, (one, two) in coverage(truth, prediction.mesh.vertices, prediction.sigma).items():
                metrics[part] = replace(metrics[part], within_sigma=one, within_two_sigma=two)
        return metrics, ""
    except UsxError as error:
        return {}, str(error)
