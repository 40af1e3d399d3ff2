"""How many steps fit into the time that is there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

MEASURED_STEPS = 12
NOT_COUNTED = 2  # first steps compile and fill caches
RECENT_STEPS = 200
SHARE_OF_VALIDATIONS = 0.2


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

    def affordable(self, validations: int) -> int:
        """How many of ``validations`` to come take at most a fifth of the time left, if all are as long as the last.

        Two of them in any case: the first of all, of an untrained model, may have taken far longer than the next.
        """
        left = self._budget_s - self.spent_s
        longest = max(self._last_validation_s, 1e-6)
        return min(validations, max(2, int(SHARE_OF_VALIDATIONS * left / longest)))

    def total(self, step: int, validations: int) -> int:
        """Steps of the whole training when ``step`` are done and ``validations`` are to come: what the time left allows
        at the usual pace of the last steps, stalls left out."""
        recent = sorted((self._steps[NOT_COUNTED:] or self._steps)[-RECENT_STEPS:])
        usual = recent[:max(1, int(0.9 * len(recent)))]
        left = self._budget_s - self.spent_s
        left -= min(validations * self._last_validation_s, SHARE_OF_VALIDATIONS * left)
        return step + max(0, int(left / max(sum(usual) / max(len(usual), 1), 1e-6)))

    def left_s(self, steps: int) -> float:
        """Seconds that are left: of the budget, or for ``steps`` more at the pace of the last ones."""
        if self.limited:
            return max(self._budget_s - self.spent_s, 0.0)
        recent = (self._steps[NOT_COUNTED:] or self._steps)[-RECENT_STEPS:]
        return steps * sum(recent) / max(len(recent), 1)

    @property
    def _last_validation_s(self) -> float:
        return self._validations[-1] if self._validations else 0.0
