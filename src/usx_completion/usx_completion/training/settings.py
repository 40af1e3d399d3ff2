"""Settings of a training, refused when they are made where they make no sense."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from usx_common.errors import UsxError


@dataclass(frozen=True)
class OptimiserSettings:
    """"adam" (weight decay as a part of the gradient) or "adamw" (apart from it), with the largest learning rate."""

    name: str = "adam"
    rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _one_of(self, "name", ("adam", "adamw"))
        _within(self, "rate", 1e-9, 1.0)
        _within(self, "weight_decay", 0.0, 1.0)
        if len(self.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise _refusal(self, "betas", "two numbers within 0 .. 1, 1 excluded")


@dataclass(frozen=True)
class ScheduleSettings:
    """Course of the learning rate. "steps": times ``factor`` at each share ``at`` of the training; "cosine": half a
    cosine from the whole rate down. Neither goes below ``floor``; ``warm_up``: steps over which it rises from near 0.
    """

    kind: str = "steps"
    at: tuple[float, ...] = (0.4, 0.8)
    factor: float = 0.7
    floor: float = 1e-6
    warm_up: int = 0

    def __post_init__(self) -> None:
        _one_of(self, "kind", ("steps", "cosine"))
        _within(self, "factor", 0.0, 1.0)
        _within(self, "floor", 0.0, 1.0)
        _within(self, "warm_up", 0, 10**6)
        if not all(0.0 < share < 1.0 for share in self.at) or list(self.at) != sorted(self.at):
            raise _refusal(self, "at", "rising shares of the training within 0 .. 1")


@dataclass(frozen=True)
class TrainingSettings:
    """A training. Its length is ``steps`` or ``epochs``, one of them 0.

    ``batch``: samples that one gradient is made of, over all processes; ``accumulate``: parts that a process takes its
    share in, one after the other, to save memory. ``average``: decay of the running average of the parameters that is
    validated and exported, 0: none; ``clip``: largest norm of the gradient, 0: any; ``precision``: "float32" or
    "bfloat16" (autocast). ``validations``: times that the validation split is looked at, evenly spread; ``select``: the
    figure (the lower the better) whose best validation is exported, "": the last one; ``stored``: type of the numbers
    in the exported file, "float32" or "float16"; ``checkpoint_minutes``: at least this often the state is saved.
    """

    steps: int = 0
    epochs: float = 100.0
    batch: int = 4
    accumulate: int = 1
    seed: int = 42
    average: float = 0.0
    clip: float = 0.0
    precision: str = "float32"
    validations: int = 20
    select: str = ""
    stored: str = "float32"
    checkpoint_minutes: float = 10.0
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)

    def __post_init__(self) -> None:
        for name, low, high in (("steps", 0, 10**8), ("epochs", 0.0, 1e6), ("batch", 1, 65536),
                                ("accumulate", 1, 4096), ("seed", 0, 2**31), ("average", 0.0, 0.99999),
                                ("clip", 0.0, 1e6), ("validations", 1, 10**4), ("checkpoint_minutes", 0.01, 1e4)):
            _within(self, name, low, high)
        _one_of(self, "precision", ("float32", "bfloat16"))
        _one_of(self, "stored", ("float32", "float16"))
        if (self.steps > 0) == (self.epochs > 0.0):
            raise UsxError(f"TrainingSettings steps = {self.steps} and epochs = {self.epochs:g}: give one of them and "
                           "set the other to 0")

    def total_steps(self, samples: int) -> int:
        """Steps of the training with this many samples in an epoch."""
        return self.steps or max(1, math.ceil(self.epochs * samples / self.batch))

    def part_size(self, world: int) -> int:
        """Samples that one of ``world`` processes takes at a time. Raises UsxError where parts would differ."""
        parts = world * self.accumulate
        if self.batch % parts:
            raise UsxError(f"a batch of {self.batch} cannot be shared evenly by {world} processes with "
                           f"{self.accumulate} parts each: change batch, accumulate or --processes")
        return self.batch // parts


def learning_rate(step: int, total: int, rate: float, settings: ScheduleSettings) -> float:
    """Learning rate of step ``step`` (from 0) of ``total`` with the largest ``rate``."""
    warm = min(1.0, (step + 1) / (settings.warm_up + 1))
    if settings.kind == "steps":
        level = rate * settings.factor ** sum(step >= share * total for share in settings.at)
    else:
        length = max(total - settings.warm_up, 1)
        done = min(max(step - settings.warm_up, 0) / length, 1.0)
        level = rate * 0.5 * (1.0 + math.cos(math.pi * done))
    return max(level, min(settings.floor, rate)) * warm


def _within(settings: object, name: str, low: float, high: float) -> None:
    value = getattr(settings, name)
    if not (math.isfinite(value) and low <= value <= high):
        raise _refusal(settings, name, f"within {low:g} .. {high:g}")


def _one_of(settings: object, name: str, choices: tuple[str, ...]) -> None:
    if getattr(settings, name) not in choices:
        raise _refusal(settings, name, "one of " + ", ".join(choices))


def _refusal(settings: object, name: str, must_be: str) -> UsxError:
    return UsxError(f"{type(settings).__name__} {name} = {getattr(settings, name)!r} must be {must_be}")
