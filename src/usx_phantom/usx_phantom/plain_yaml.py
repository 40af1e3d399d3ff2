"""Files of plain numbers and words in YAML, as an acquisition folder holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml


def numbers(matrix: np.ndarray) -> list[float]:
    """The entries of an array of any shape, row by row."""
    return [float(v) for v in np.asarray(matrix).ravel()]


def dump(path: Path, content: dict[str, Any]) -> None:
    """Write `content` in its own order, short lists on one line. Raises OSError where the file cannot be written."""
    path.write_text(yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110))
