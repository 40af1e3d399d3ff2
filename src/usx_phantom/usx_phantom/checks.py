"""Checks of the simulators' settings, shared by all of them."""

from __future__ import annotations

import numpy as np

from usx_common.errors import UsxError


class BadSettings(UsxError):
    """Settings of a simulator that make no sense."""


def check_range(what: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Raise BadSettings unless `value` is a finite number of `low` to `high`."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not (number and np.isfinite(value) and low <= value <= high):
        raise BadSettings(f"{what} = {value}{' ' + unit if unit else ''}: must be {low:g} to {high:g}")


def check_whole(what: str, value: int) -> int:
    """`value` as an int; raises BadSettings unless it is a whole number of 0 to 2147483647 (a seed, a frame)."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise BadSettings(f"{what} = {value}: must be a whole number of 0 to 2147483647")
    return int(value)
