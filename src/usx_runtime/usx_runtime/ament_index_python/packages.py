"""Where packages have put their share folders: AMENT_PREFIX_PATH, then the prefix of this Python environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

INDEX = Path("share", "ament_index", "resource_index", "packages")


class PackageNotFoundError(KeyError):
    """No prefix has a package of that name."""

    def __str__(self) -> str:
        return str(self.args[0])


def get_search_paths() -> list[str]:
    """Prefixes in the order in which they are searched."""
    prefixes = [part for part in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if part]
    return list(dict.fromkeys([*prefixes, sys.prefix]))


def get_package_prefix(package_name: str) -> str:
    """The prefix that holds share/`package_name`.

    Raises ValueError for an empty name or one with a separator, PackageNotFoundError where no prefix has it."""
    if not package_name or "/" in package_name or os.sep in package_name:
        raise ValueError(f"'{package_name}' is not a package name")
    for prefix in get_search_paths():
        if (Path(prefix) / INDEX / package_name).is_file():
            return prefix
    searched = ", ".join(get_search_paths())
    raise PackageNotFoundError(f"package '{package_name}' not found, searching: {searched}")


def get_package_share_directory(package_name: str) -> str:
    """The share folder of `package_name`; raises as `get_package_prefix` does."""
    return str(Path(get_package_prefix(package_name)) / "share" / package_name)


def get_package_share_path(package_name: str) -> Path:
    return Path(get_package_share_directory(package_name))


def get_packages_with_prefixes() -> dict[str, str]:
    """Every package name with its prefix (the first one searched wins)."""
    found: dict[str, str] = {}
    for prefix in reversed(get_search_paths()):
        folder = Path(prefix) / INDEX
        if folder.is_dir():
            found.update({entry.name: prefix for entry in folder.iterdir() if entry.is_file()})
    return found
