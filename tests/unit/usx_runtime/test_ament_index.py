"""Share folders are found along AMENT_PREFIX_PATH, then under the prefix of the Python environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from usx_runtime import ament_index_python as index


def make_package(prefix: Path, name: str) -> None:
    for folder in ("share/ament_index/resource_index/packages", f"share/{name}"):
        (prefix / folder).mkdir(parents=True, exist_ok=True)
    (prefix / "share/ament_index/resource_index/packages" / name).touch()


@pytest.fixture
def prefixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    first, second, environment = tmp_path / "first", tmp_path / "second", tmp_path / "environment"
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{first}:{second}")
    monkeypatch.setattr(sys, "prefix", str(environment))
    return first, second, environment


def test_prefixes_are_searched_in_order(prefixes: tuple[Path, Path, Path]) -> None:
    first, second, environment = prefixes
    for prefix, name in ((second, "robot"), (environment, "robot"), (environment, "probe"), (first, "arm")):
        make_package(prefix, name)
    assert index.get_package_share_directory("robot") == str(second / "share" / "robot")
    assert index.get_package_prefix("probe") == str(environment)
    assert index.get_packages_with_prefixes() == {
        "arm": str(first),
        "robot": str(second),
        "probe": str(environment),
    }


def test_a_share_folder_without_marker_is_no_package(prefixes: tuple[Path, Path, Path]) -> None:
    (prefixes[0] / "share" / "half").mkdir(parents=True)
    with pytest.raises(index.PackageNotFoundError, match=r"'half' not found, searching: .*first"):
        index.get_package_share_directory("half")


@pytest.mark.parametrize("name", ["", "a/b", "../etc"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a package name"):
        index.get_package_prefix(name)
