"""Sequence files of IGSIO/PLUS and 3D Slicer: one door for all kinds, in and out."""

from __future__ import annotations

from pathlib import Path

from usx_compounding import sequence_metaimage, sequence_nrrd
from usx_compounding.sequence import BadSequence, Sequence

METAIMAGE_KINDS = (".mha", ".mhd")
NRRD_KINDS = (".nrrd",)


def read_sequence(path: str | Path) -> Sequence:
    """Sequence of a .igs.mha, .igs.nrrd or .seq.nrrd file; images (frames, rows, columns) in orientation MF.

    Raises BadSequence with the file's name when it is missing, of another kind, cut short or contradicts itself.
    """
    path = Path(path)
    try:
        return _module(path).read(path)
    except OSError as error:
        raise BadSequence(f"sequence file {path} cannot be read: {error.strerror or error}") from error


def write_sequence(path: str | Path, sequence: Sequence, code: str = "MFA", compressed: bool = True) -> None:
    """Write a sequence; the file's ending decides the kind, ``code`` the orientation of the images in it.

    A half-written file is never left behind. Raises BadSequence when it cannot be written.
    """
    path = Path(path)
    module = _module(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        module.write(partial, sequence, code, compressed)
        partial.replace(path)
    except OSError as error:
        raise BadSequence(f"sequence file {path} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _module(path: Path):  # type: ignore[no-untyped-def]
    ending = path.suffix.lower()
    if ending in METAIMAGE_KINDS:
        return sequence_metaimage
    if ending in NRRD_KINDS:
        return sequence_nrrd
    raise BadSequence(f"{path} is no sequence file: known endings are {', '.join(METAIMAGE_KINDS + NRRD_KINDS)}")
