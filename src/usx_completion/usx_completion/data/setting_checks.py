"""Settings that make no sense are refused when they are made, by name and value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from usx_common.errors import UsxError


def check_settings(settings: Any, bounds: Mapping[str, tuple[float, float]]) -> None:
    """Raise UsxError unless every field named is a finite number within its bounds, or a pair (low, high) of such."""
    for name, (low, high) in bounds.items():
        value = getattr(settings, name)
        values = np.atleast_1d(np.asarray(value, dtype=float))
        if not (np.isfinite(values).all() and values.min() >= low and values.max() <= high):
            raise UsxError(f"{type(settings).__name__} {name} = {value} must be within {low:g} .. {high:g}")


def check_ranges(settings: Any, names: tuple[str, ...]) -> None:
    """Raise UsxError unless every field named is a pair (low, high) in that order."""
    for name in names:
        value = getattr(settings, name)
        if len(value) != 2 or value[0] > value[1]:
            raise UsxError(f"{type(settings).__name__} {name} = {value} must be (low, high)")
