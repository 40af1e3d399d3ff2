"""Checkpoints of a training: complete or not there at all, and read without running code of the file."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from usx_common.errors import UsxError

FORMAT = "usx training checkpoint 1"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state (tensors, numbers, text, and mappings and lists of these), replacing what was there."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        torch.save({**state, "format": FORMAT}, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_checkpoint(path: Path, settings: str) -> dict[str, Any]:
    """A state on the CPU. Raises UsxError where it is missing, damaged, foreign, or of one with other settings."""
    if not path.is_file():
        raise UsxError(f"there is no checkpoint {path} to resume from: train without --resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UsxError(f"{path} cannot be read as a checkpoint: {str(error).splitlines()[0][:200]}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsxError(f"{path} is no checkpoint of this trainer (format {FORMAT!r})")
    if state["settings"] != settings:
        raise UsxError(f"{path} belongs to a training with other settings or data: "
                       f"{_difference(state['settings'], settings)}; train into another folder")
    return state


def _difference(before: str, now: str) -> str:
    """The first place where two lines of settings differ."""
    place = next((n for n, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), min(len(before), len(now)))
    start = max(0, place - 30)
    return f"...{before[start:place + 30]}... then, ...{now[start:place + 30]}... now"
