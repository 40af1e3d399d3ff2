"""What a file of the pool was made from, kept in the file: files of two kinds must not end up in one training."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError

FORMAT = "usx example pool 3"  # 3: starts found sideways, generated spines among the people
NAME = "identity"  # of the array


class BadPool(UsxError):
    """A file or a folder of examples that is missing, damaged, or of another kind."""


@dataclass(frozen=True)
class PoolIdentity:
    """``seed`` of people and errors; the file's ``first`` spine and its ``count``, those left out included; ``presets``
    in turn; ``sources`` of the spines in turn; ``made_from``: a hash of all that presets and sources hold;
    ``shape_model``: SHA-256 of the prior; ``format`` of the file."""

    seed: int
    first: int
    count: int
    presets: tuple[str, ...]
    sources: tuple[str, ...]
    made_from: str
    shape_model: str
    format: str = FORMAT

    def array(self) -> NDArray[np.str_]:
        """A single text: JSON."""
        return np.array(json.dumps(asdict(self)))

    @staticmethod
    def of(path: Path, arrays: Any) -> PoolIdentity:
        """The identity among a file's arrays. Raises BadPool where there is none, or another one."""
        if NAME not in arrays:
            raise BadPool(f"{path} does not say what it was made from: it is of an earlier version; make the pool "
                          "again")
        try:
            told = json.loads(str(arrays[NAME][()]))
            if told["format"] != FORMAT:
                raise BadPool(f"{path} was made with format {told['format']}, not {FORMAT}: use another folder, or "
                              "delete this one")
            values: dict[str, Any] = {field.name: _hashable(told[field.name]) for field in fields(PoolIdentity)}
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise BadPool(f"{path} is damaged: its identity cannot be read ({error}); delete it, and what made "
                          "the folder makes it again") from error
        return PoolIdentity(**values)

    def check(self, path: Path, wanted: PoolIdentity, place_too: bool = True) -> None:
        """Raises BadPool naming the first value of the file ``path`` that is not the one wanted; ``place_too``: also
        which spines it holds."""
        # the format first; hashes, which tell nobody anything, last
        for field in sorted(reversed(fields(self)), key=lambda field: field.name == "made_from"):
            mine, other = getattr(self, field.name), getattr(wanted, field.name)
            if mine != other and (place_too or field.name not in ("first", "count")):
                raise BadPool(f"{path} was made with {field.name.replace('_', ' ')} {_text(mine)}, not "
                              f"{_text(other)}: use another folder, or delete this one")


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
