"""CT files gathered by series; a series is ready when none of its files has come for a while."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset


@dataclass
class _Series:
    files: dict[str, tuple[Path, Dataset]] = field(default_factory=dict)
    fresh: int = 0
    changed_at: float = 0.0


@dataclass(frozen=True)
class ReadySeries:
    """All ``files`` of the series, by name, with their headers; ``fresh`` have come since it was last handed out."""

    files: tuple[tuple[Path, Dataset], ...]
    fresh: int


class SeriesInbox:
    """Files of CT series by SeriesInstanceUID; times are seconds of a steady clock."""

    def __init__(self, quiet: float) -> None:
        self._quiet = quiet
        self._series: dict[str, _Series] = {}

    def add(self, path: Path, header: Dataset, now: float) -> bool:
        """Take one file; False when the same object (SOPInstanceUID) is there already."""
        series = self._series.setdefault(str(header.get("SeriesInstanceUID", "")), _Series())
        series.changed_at = now
        uid = str(header.get("SOPInstanceUID", "")) or str(path)
        if uid in series.files and series.files[uid][0] != path:
            return False
        series.files[uid] = (path, header)
        series.fresh += 1
        return True

    @property
    def waiting(self) -> int:
        """Files of series that are not ready."""
        return sum(series.fresh for series in self._series.values())

    def ready(self, now: float) -> list[ReadySeries]:
        """Series that have new files and have been quiet long enough, in the order of their last file."""
        quiet = [series for series in self._series.values()
                 if series.fresh and now - series.changed_at >= self._quiet]
        result = []
        for series in sorted(quiet, key=lambda item: item.changed_at):
            files = sorted(series.files.values(), key=lambda item: item[0])
            result.append(ReadySeries(tuple(files), series.fresh))
            series.fresh = 0
        return result
