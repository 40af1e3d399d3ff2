"""Files that arrive in a folder: each one once, and only when it has stopped growing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TEMPORARY_ENDINGS = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart", ".download", ".swp", "~")
MOST_FILES = 20_000
DEEPEST = 4


@dataclass(frozen=True)
class _State:
    size: int
    modified_ns: int


class FolderWatch:
    """New files under ``folder``, subfolders included, symbolic links and temporary names left out.

    A file counts as complete when its size and modification time have stayed the same for ``quiet`` seconds of the
    caller's clock. A file that is written anew later is reported again.
    """

    def __init__(self, folder: Path, quiet: float = 1.0) -> None:
        self.folder = folder
        self._quiet = quiet
        self._waiting: dict[Path, tuple[_State, float]] = {}
        self._done: dict[Path, _State] = {}

    @property
    def exists(self) -> bool:
        return self.folder.is_dir()

    @property
    def waiting(self) -> int:
        """Files seen that still change."""
        return len(self._waiting)

    def poll(self, now: float) -> list[Path]:
        """Files that have become complete, by name; ``now`` in s on a steady clock."""
        found = dict(_files(self.folder))
        complete = []
        for path, state in found.items():
            if self._done.get(path) == state:
                continue
            known = self._waiting.get(path)
            if known is None or known[0] != state:
                self._waiting[path] = (state, now)
            elif now - known[1] >= self._quiet:
                del self._waiting[path]
                self._done[path] = state
                complete.append(path)
        self._waiting = {path: entry for path, entry in self._waiting.items() if path in found}
        self._done = {path: state for path, state in self._done.items() if path in found}
        return sorted(complete)


def is_temporary(name: str) -> bool:
    """Names that other programs give to files they still write, hidden files, and DICOM's directory file."""
    return name.startswith((".", "~")) or name.lower().endswith(TEMPORARY_ENDINGS) or name.upper() == "DICOMDIR"


def _files(folder: Path) -> Iterator[tuple[Path, _State]]:
    count = 0
    for parent, folders, names in os.walk(folder, followlinks=False):
        depth = len(Path(parent).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not is_temporary(name)) if depth < DEEPEST else []
        for name in sorted(names):
            path = Path(parent) / name
            if is_temporary(name) or path.is_symlink():
                continue
            try:
                status = path.stat()
            except OSError:
                continue
            count += 1
            if count > MOST_FILES:
                return
            yield path, _State(status.st_size, status.st_mtime_ns)
