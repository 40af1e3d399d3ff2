"""NRRD sequences (.igs.nrrd, .seq.nrrd, .nrrd): those of IGSIO/PLUS, and those that 3D Slicer saves."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import BinaryIO

import numpy as np

from usx_compounding import orientation, sequence_fields, sequence_pixels
from usx_compounding.sequence import BadSequence, Sequence
from usx_compounding.sequence_pixels import PixelLayout

ELEMENTS = {"u1": ("uchar", "unsigned char", "uint8", "uint8_t"), "i1": ("signed char", "int8", "int8_t"),
            "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
            "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
            "u4": ("uint", "unsigned int", "uint32", "uint32_t"), "i4": ("int", "signed int", "int32", "int32_t"),
            "f4": ("float",), "f8": ("double",)}
ENCODINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
ORIENTATION_KEY = "ultrasound image orientation"
TYPE_KEY = "ultrasound image type"  # a metafile calls it UltrasoundImageType
GEOMETRY_KEYS = {"type", "dimension", "sizes", "kinds", "endian", "encoding", "data file", "datafile", "space",
                 "space dimension", "space directions", "space origin", "spacings", "centerings", ORIENTATION_KEY,
                 "UltrasoundImageOrientation"}


def read(path: Path) -> Sequence:
    """Sequence of an NRRD file; images turned to MF. Raises BadSequence naming the file and what is wrong in it."""
    with path.open("rb") as stream:
        pairs = _read_header(stream, path)
        header, frames = sequence_fields.collect(pairs, path)
        layout = _layout(header, path)
        fields = sequence_fields.as_list(frames, layout.frames, path)
        data = _read_pixels(stream, header, layout, path)
    images = sequence_pixels.to_images(data, layout, path)
    if TYPE_KEY in header:
        header["UltrasoundImageType"] = header.pop(TYPE_KEY)
    return Sequence(images, fields, {key: value for key, value in header.items() if key not in GEOMETRY_KEYS})


def write(path: Path, sequence: Sequence, code: str = "MFA", compressed: bool = True) -> None:
    """Write an NRRD with images in orientation ``code``. Raises BadSequence for what the format cannot carry."""
    images = np.ascontiguousarray(orientation.from_inside(sequence.images, code))
    names = {np.dtype(kind): words[0] for kind, words in ELEMENTS.items()}
    if images.dtype not in names:
        raise BadSequence(f"pixels of type {images.dtype} cannot be written to {path.name}")
    data = images.astype(images.dtype.newbyteorder("<"), copy=False).tobytes()
    frames, rows, columns = images.shape
    lines = ["NRRD0005", f"type: {names[images.dtype]}", "dimension: 3", f"sizes: {columns} {rows} {frames}",
             "kinds: domain domain list", "endian: little", f"encoding: {'gzip' if compressed else 'raw'}",
             f"{ORIENTATION_KEY}:={code}"]
    for key, value in sequence.header.items():
        sequence_fields.check_text(key.replace(" ", "_"), value)
        lines.append(f"{TYPE_KEY if key == 'UltrasoundImageType' else key}:={value}")
    lines += [f"{key}:={value}" for key, value in sequence_fields.spell(sequence.fields)]
    body = gzip.compress(data, 6, mtime=0) if compressed else data
    path.write_bytes(("\n".join(lines) + "\n\n").encode("ascii") + body)


def _read_header(stream: BinaryIO, path: Path) -> list[tuple[str, str]]:
    if not stream.readline(1000).startswith(b"NRRD000"):
        raise BadSequence(f"{path}: does not begin with NRRD000x: no NRRD file")
    pairs: list[tuple[str, str]] = []
    while stream.tell() < sequence_pixels.MAX_HEADER_BYTES:
        line = stream.readline(1_000_000)
        if not line.endswith(b"\n"):
            break
        text = line.decode("latin-1").strip()
        if not text:
            return pairs
        if text.startswith("#"):
            continue
        key, colon, value = text.partition(":")
        if not colon:
            raise BadSequence(f"{path}: header line {text[:60]!r} is not 'name: value'")
        pairs.append((key.strip(), value.removeprefix("=").strip()))
    raise BadSequence(f"{path}: the header ends before its empty line: cut short?")


def _layout(header: dict[str, str], path: Path) -> PixelLayout:
    for key in ("type", "sizes", "encoding"):
        if key not in header:
            raise BadSequence(f"{path}: header says no '{key}'")
    sizes = sequence_fields.integers(header["sizes"], "sizes", path)
    kinds = header.get("kinds", " ".join(["domain"] * (len(sizes) - 1) + ["list"])).lower().split()
    if len(kinds) != len(sizes):
        raise BadSequence(f"{path}: {len(kinds)} kinds for {len(sizes)} sizes")
    by_kind: dict[str, list[int]] = {"frames": [], "pixels": [], "channels": []}
    for kind, size in zip(kinds, sizes, strict=True):
        by_kind[_role(kind)].append(size)
    pixels = by_kind["pixels"]
    if len(by_kind["frames"]) != 1 or len(pixels) not in (2, 3) or (len(pixels) == 3 and pixels[2] > 1):
        raise BadSequence(f"{path}: sizes {header['sizes']}, kinds {header.get('kinds', 'not given')}: needed are "
                          "columns, rows, (depth 1,) and one axis of kind 'list' or 'time'")
    roles = [_role(kind) for kind in kinds]
    if roles[-1] != "frames" and roles[0] != "frames":
        raise BadSequence(f"{path}: the axis of frames must be the first or the last, kinds are {header['kinds']}")
    layout = PixelLayout(by_kind["frames"][0], pixels[0], pixels[1],
                         by_kind["channels"][0] if by_kind["channels"] else 1, _element(header, path),
                         header.get(ORIENTATION_KEY, header.get("UltrasoundImageOrientation", orientation.INSIDE)),
                         frames_first=roles[0] == "frames")
    sequence_pixels.check_layout(layout, path)
    return layout


def _role(kind: str) -> str:
    if kind in ("list", "time"):
        return "frames"
    return "pixels" if kind in ("domain", "space") else "channels"


def _element(header: dict[str, str], path: Path) -> np.dtype:
    for kind, names in ELEMENTS.items():
        if header["type"].lower() in names:
            return np.dtype(kind).newbyteorder(">" if header.get("endian", "little").lower() == "big" else "<")
    raise BadSequence(f"{path}: type {header['type']!r} is unknown")


def _read_pixels(stream: BinaryIO, header: dict[str, str], layout: PixelLayout, path: Path) -> bytes:
    encoding = ENCODINGS.get(header["encoding"].lower())
    if encoding is None:
        raise BadSequence(f"{path}: encoding {header['encoding']!r} is not readable; {', '.join(ENCODINGS)} are")
    sibling = header.get("data file", header.get("datafile", ""))
    source = sequence_pixels.open_pixels(path, sibling) if sibling else stream
    with source:
        if encoding == "raw":
            return source.read(layout.byte_count)
        return sequence_pixels.inflate(source, layout.byte_count, encoding, path)
