"""How far people are from the mean shape: the amplitudes that sampled vertebrae are given, and what they matched.

A model learned from few people explains a new person only in part. What it leaves over is a smooth random field (a
Gaussian process, Lüthi et al., IEEE TPAMI 40(8), 2018) whose size was measured on people kept out of the model.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from usx_common.errors import UsxError
from usx_common.levels import LEVELS

_STEPS = ("step_turn_rad", "step_back_mm", "step_up_mm")  # earlier files do not have them


@dataclass(frozen=True)
class Spread:
    """Amplitudes of sampled shapes, one number for each of the 5 levels where a tuple is named by level.

    ``kernel_width_mm`` and ``kernel_share`` (of the variance): the smooth field's mixture of Gaussian kernels;
    ``process_sd_mm``: its standard deviation per axis and level; ``process_correlation``: between levels of a spine;
    ``mode_scale``: factor on the modes' standard deviations, by level. ``to_mean_mm`` and ``left_over_mm``, by level:
    what they were matched to, the mean distance along the normal of a person kept out to the mean shape, and to what
    the modes explain; empty for a model that was not calibrated. ``step_turn_rad``, ``step_back_mm`` and
    ``step_up_mm``, one number for each of the 4 gaps: added to the mean steps' rotation about x, y and z before bones
    give way, which on average moves them as far the other way; empty for none.
    """

    kernel_width_mm: tuple[float, ...] = (14.0,)
    kernel_share: tuple[float, ...] = (1.0,)
    process_sd_mm: tuple[float, ...] = (0.35,) * len(LEVELS)
    process_correlation: float = 0.0
    mode_scale: tuple[float, ...] = (1.0,) * len(LEVELS)
    to_mean_mm: tuple[float, ...] = ()
    left_over_mm: tuple[float, ...] = ()
    step_turn_rad: tuple[float, ...] = ()
    step_back_mm: tuple[float, ...] = ()
    step_up_mm: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("process_sd_mm", "mode_scale", "to_mean_mm", "left_over_mm"):
            values = getattr(self, name)
            if (values or not name.endswith("mm")) and len(values) != len(LEVELS):
                raise UsxError(f"the spread's {name} has {len(values)} numbers; it needs one for each of {LEVELS}")
            if not all(0.0 <= value < 100.0 for value in values):
                raise UsxError(f"the spread's {name} {values} must be numbers of 0 or more, below 100")
        for name in _STEPS:
            values = getattr(self, name)
            if len(values) not in (0, len(LEVELS) - 1) or not all(-20.0 <= value <= 20.0 for value in values):
                raise UsxError(f"the spread's {name} {values} must be {len(LEVELS) - 1} numbers within -20 .. 20, "
                               "or none")
        if len(self.kernel_width_mm) != len(self.kernel_share) or not self.kernel_width_mm:
            raise UsxError("the spread's kernel_width_mm and kernel_share must have as many numbers, one at least")
        if not all(1.0 <= width <= 200.0 for width in self.kernel_width_mm):
            raise UsxError(f"the spread's kernel_width_mm {self.kernel_width_mm} must be within 1 .. 200")
        if not all(share >= 0.0 for share in self.kernel_share) or not 0.99 < sum(self.kernel_share) < 1.01:
            raise UsxError(f"the spread's kernel_share {self.kernel_share} must be shares that sum to 1")
        if not 0.0 <= self.process_correlation < 1.0:
            raise UsxError(f"the spread's process_correlation {self.process_correlation} must be within 0 .. 1")

    def to_json(self) -> str:
        """One line for a model's metadata."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Spread:
        """The spread that `to_json` wrote. Raises UsxError when it is no such line."""
        try:
            values = json.loads(text)
            known = {field.name for field in fields(Spread)}
            if not isinstance(values, dict) or not known - set(_STEPS) <= set(values) <= known:
                raise UsxError(f"a spread names {', '.join(sorted(known))}")
            correlation = float(values.pop("process_correlation"))
            return Spread(process_correlation=correlation,
                          **{name: tuple(map(float, value)) for name, value in values.items()})
        except (json.JSONDecodeError, TypeError, ValueError) as error:
            raise UsxError(f"the model's spread cannot be read: {error}") from error
