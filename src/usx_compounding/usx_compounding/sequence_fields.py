"""Per-frame fields of a sequence file: ``Seq_Frame0012_ProbeToTrackerTransform`` and its like, read and spelled."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from usx_compounding.sequence import BadSequence

FRAME_KEY = re.compile(r"Seq_Frame(\d{1,9})_(.+)", re.IGNORECASE)


def collect(pairs: list[tuple[str, str]], path: Path) -> tuple[dict[str, str], dict[int, dict[str, str]]]:
    """Split a header's (key, value) pairs into those of the file and those of each frame number."""
    header: dict[str, str] = {}
    frames: dict[int, dict[str, str]] = {}
    for key, value in pairs:
        match = FRAME_KEY.fullmatch(key)
        if match is None:
            header[key] = value
        else:
            frames.setdefault(int(match[1]), {})[match[2]] = value
    return header, frames


def as_list(frames: dict[int, dict[str, str]], count: int, path: Path) -> list[dict[str, str]]:
    """Fields of frames 0 .. count-1. Raises BadSequence when the header speaks of a frame that does not exist."""
    beyond = sorted(number for number in frames if number >= count)
    if beyond:
        raise BadSequence(f"{path}: fields of frame {beyond[0]}, but the file has {count} frames")
    return [frames.get(number, {}) for number in range(count)]


def spell(fields: list[dict[str, str]]) -> Iterator[tuple[str, str]]:
    """(key, value) pairs for a header. Raises BadSequence for text that a header line cannot carry."""
    for number, frame in enumerate(fields):
        for name, value in frame.items():
            check_text(name, value)
            yield f"Seq_Frame{number:04d}_{name}", value


def check_text(name: str, value: str) -> None:
    """Raise BadSequence when a field would break the header apart."""
    if any(mark in name for mark in "=:\r\n ") or not name:
        raise BadSequence(f"field name {name!r} cannot be written: no spaces, '=', ':' or line ends")
    if any(mark in value for mark in "\r\n") or not (name + value).isascii():
        raise BadSequence(f"field {name} = {value[:60]!r} cannot be written: one line of ASCII is needed")


def integers(text: str, what: str, path: Path) -> list[int]:
    """Whole numbers of a header line. Raises BadSequence naming the line."""
    try:
        return [int(number) for number in text.split()]
    except ValueError as error:
        raise BadSequence(f"{path}: {what} = {text[:60]!r} must be whole numbers") from error
