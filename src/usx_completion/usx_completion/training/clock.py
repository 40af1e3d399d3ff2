"""How many steps fit into the time that is there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

MEASURED_STEPS = 12
NOT_COUNTED = 2  # first steps compile and fill caches


class Clock:
    """Time spent on steps and on validations; ``spent_s``: before this process, when a training goes on."""

    def __init__(self, minutes: float, spent_s: float = 0.0) -> None:
        self._budget_s, self._spent_s = 60.0 * minutes, spent_s
        self._began = time.monotonic()
        self._steps: list[float] = []
        self._validations: list[float] = []

    @property
    def limited(self) -> bool:
        """Whether there is a budget of time."""
        return self._budget_s > 0.0

    @property
    def spent_s(self) -> float:
        """Seconds of training so far."""
        return self._spent_s + time.monotonic() - self._began

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure a step."""
        began = time.monotonic()
        yield
        self._steps.append(time.monotonic() - began)

    @contextmanager
    def validation(self) -> Iterator[None]:
        """Measure a validation with all that is written after it."""
        began = time.monotonic()
        yield
        self._validations.append(time.monotonic() - began)

    def total(self, step: int, validations: int) -> int:
        """Steps of the whole training when ``step`` are done and ``validations`` are to come: what the time left allows
        at the mean pace so far."""
        counted = self._steps[NOT_COUNTED:] or self._steps
        a_step = sum(counted) / max(len(counted), 1)
        a_validation = sum(self._validations) / max(len(self._validations), 1)
        left = self._budget_s - self.spent_s - validations * a_validation
        return step + max(0, int(left / max(a_step, 1e-6)))
