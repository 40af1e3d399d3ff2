"""Names and labels of the lumbar levels (VerSe numbering)."""

from __future__ import annotations

from usx_common.errors import UsxError

LEVEL_NAMES = {20: "L1", 21: "L2", 22: "L3", 23: "L4", 24: "L5"}
LEVELS = tuple(LEVEL_NAMES.values())
UNKNOWN_LABEL = 0

SOURCE_ULTRASOUND = 0
SOURCE_XRAY = 1

_LABELS = {name: label for label, name in LEVEL_NAMES.items()}


def level_of_label(label: int) -> str:
    """Name (``L1`` .. ``L5``) of a VerSe label (20 .. 24). Raises UsxError for any other label."""
    try:
        return LEVEL_NAMES[int(label)]
    except (KeyError, ValueError) as error:
        raise UsxError(f"label {label} is no lumbar level; known are 20..24 for L1..L5") from error


def label_of_level(name: str) -> int:
    """VerSe label of a level name. Raises UsxError for an unknown name."""
    try:
        return _LABELS[name]
    except KeyError as error:
        raise UsxError(f"level {name!r} is unknown; known are {', '.join(LEVELS)}") from error
