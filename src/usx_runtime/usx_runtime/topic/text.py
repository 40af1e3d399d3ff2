"""Messages as YAML text, as `ros2 topic echo` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml

ELEMENTS_SHOWN = 128


def message_to_text(message: Any, show_arrays: bool = True, full: bool = False) -> str:
    """`message` as YAML. Longer sequences than 128 are cut unless `full`; none is printed without `show_arrays`."""
    plain = _plain(message, show_arrays, None if full else ELEMENTS_SHOWN)
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=10**6))


def _plain(value: Any, arrays: bool, limit: int | None, kind: str = "") -> Any:
    if hasattr(value, "get_fields_and_field_types"):
        fields = value.get_fields_and_field_types()
        return {name: _plain(getattr(value, name), arrays, limit, text) for name, text in fields.items()}
    if isinstance(value, bytes):
        return value[0] if len(value) == 1 else list(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.ndarray) or hasattr(value, "tolist"):
        return _sequence(
            value.tolist() if limit is None else value[: limit + 1].tolist(), len(value), arrays, limit, kind
        )
    if isinstance(value, Sequence):
        return _sequence(value, len(value), arrays, limit, kind)
    return str(value)


def _sequence(values: Any, length: int, arrays: bool, limit: int | None, kind: str) -> Any:
    if not arrays:
        return f"<sequence type: {kind.removeprefix('sequence<').removesuffix('>')}, length: {length}>"
    shown = [_plain(value, arrays, limit) for value in (values if limit is None else values[:limit])]
    return shown if len(shown) == length else [*shown, "..."]
