"""Saving volumes under one configured folder, whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

import numpy as np

from usx_common.errors import UsxError
from usx_common.volumes import Volume, read_volume, write_volume

FORMATS = ("nrrd", "nii.gz", "mha")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class CannotSave(UsxError):
    """A volume was not saved; says where and why."""


def save_volume(folder: str | Path, name: str, file_format: str, volume: Volume) -> Path:
    """Write ``folder``/``name``.``file_format`` and return its path.

    ``name`` may hold letters, digits, dots, dashes and underscores only, so it cannot leave the folder. The file
    appears under its name only after it has been read back and found equal. Raises CannotSave for a bad name or
    format, a folder that cannot be made or written, a full disk.
    """
    if not SAFE_NAME.fullmatch(name):
        raise CannotSave(f"volume name {name!r} is refused: letters, digits, '.', '_' and '-' only, no folders")
    if file_format not in FORMATS:
        raise CannotSave(f"volume format {file_format!r} is unknown: it must be one of {', '.join(FORMATS)}")
    if not str(folder).strip():
        raise CannotSave("no folder to save to: set the parameter save_folder")
    directory = Path(folder).expanduser()
    path = directory / f"{name}.{file_format}"
    partial = directory / f".{name}.{os.getpid()}.partial.{file_format}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _check_space(directory, volume.values.nbytes)
        write_volume(partial, volume)
        _check_written(partial, volume)
        partial.replace(path)
    except OSError as error:
        raise CannotSave(f"volume {path} cannot be saved: {_words(error)}") from error
    except UsxError as error:
        raise CannotSave(f"volume {path} is not saved: {_words_of_disk(directory)}{error}") from error
    finally:
        _remove(partial)
    return path


def _check_space(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"the disk is full ({free >> 20} MiB free, up to {(needed >> 20) + 1} MiB needed)")


def _check_written(path: Path, volume: Volume) -> None:
    """Image libraries do not report every failed write: only what reads back equal is saved."""
    if not np.array_equal(read_volume(path).values, volume.values):
        raise UsxError("what was written does not read back equal")


def _words(error: OSError) -> str:
    return str(error.args[1]) if len(error.args) > 1 else str(error)


def _words_of_disk(directory: Path) -> str:
    free = shutil.disk_usage(directory).free
    return "the disk is full; " if free < 2**20 else ""


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # the folder itself may be what is broken
