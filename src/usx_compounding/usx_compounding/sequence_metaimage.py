"""IGSIO sequence metafiles (.igs.mha, .mha, .mhd), as PLUS and 3D Slicer write them."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from usx_compounding import orientation, sequence_fields, sequence_pixels
from usx_compounding.sequence import BadSequence, Sequence
from usx_compounding.sequence_pixels import PixelLayout

ELEMENTS = {"MET_UCHAR": "u1", "MET_CHAR": "i1", "MET_USHORT": "u2", "MET_SHORT": "i2", "MET_UINT": "u4",
            "MET_INT": "i4", "MET_FLOAT": "f4", "MET_DOUBLE": "f8"}
GEOMETRY_KEYS = {"ObjectType", "NDims", "BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData",
                 "CompressedDataSize", "DimSize", "Kinds", "ElementType", "ElementNumberOfChannels", "ElementDataFile",
                 "UltrasoundImageOrientation"}


def read(path: Path) -> Sequence:
    """Sequence of a metafile; images turned to MF. Raises BadSequence naming the file and what is wrong in it."""
    with path.open("rb") as stream:
        pairs = _read_header(stream, path)
        header, frames = sequence_fields.collect(pairs, path)
        layout = _layout(header, path)
        fields = sequence_fields.as_list(frames, layout.frames, path)
        data = _read_pixels(stream, header, layout, path)
    images = sequence_pixels.to_images(data, layout, path)
    return Sequence(images, fields, {key: value for key, value in header.items() if key not in GEOMETRY_KEYS})


def write(path: Path, sequence: Sequence, code: str = "MFA", compressed: bool = True) -> None:
    """Write a metafile with images in orientation ``code``. Raises BadSequence for what the format cannot carry."""
    images = np.ascontiguousarray(orientation.from_inside(sequence.images, code))
    names = {np.dtype(kind).newbyteorder("<"): name for name, kind in ELEMENTS.items()}
    element = images.dtype.newbyteorder("<")
    if element not in names:
        raise BadSequence(f"pixels of type {images.dtype} cannot be written to {path.name}")
    data = images.astype(element, copy=False).tobytes()
    if compressed:
        data = zlib.compress(data)
    frames, rows, columns = images.shape
    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False",
             f"CompressedData = {compressed}", *([f"CompressedDataSize = {len(data)}"] if compressed else []),
             f"DimSize = {columns} {rows} {frames}", "Kinds = domain domain list", f"ElementType = {names[element]}",
             f"UltrasoundImageOrientation = {code}"]
    for key, value in sequence.header.items():
        name = key.replace(" ", "_")  # an NRRD's own keys may have spaces
        sequence_fields.check_text(name, value)
        lines.append(f"{name} = {value}")
    lines += [f"{key} = {value}" for key, value in sequence_fields.spell(sequence.fields)]
    lines.append("ElementDataFile = LOCAL")
    path.write_bytes(("\n".join(lines) + "\n").encode("ascii") + data)


def _read_header(stream: BinaryIO, path: Path) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    while stream.tell() < sequence_pixels.MAX_HEADER_BYTES:
        line = stream.readline(1_000_000)
        if not line.endswith(b"\n"):
            break
        key, equals, value = line.decode("latin-1").partition("=")
        if equals:
            pairs.append((key.strip(), value.strip()))
        elif line.strip():
            raise BadSequence(f"{path}: header line {line[:60]!r} is not 'name = value': no sequence metafile?")
        if pairs and pairs[-1][0] == "ElementDataFile":
            return pairs
    raise BadSequence(f"{path}: the header ends before ElementDataFile: cut short, or no sequence metafile")


def _layout(header: dict[str, str], path: Path) -> PixelLayout:
    if "DimSize" not in header:
        raise BadSequence(f"{path}: header says no DimSize")
    sizes = sequence_fields.integers(header["DimSize"], "DimSize", path)
    kinds = header.get("Kinds", " ".join(["domain"] * (len(sizes) - 1) + ["list"])).lower().split()
    if len(sizes) not in (3, 4) or len(kinds) != len(sizes) or kinds[-1] not in ("list", "time"):
        raise BadSequence(f"{path}: DimSize = {header['DimSize']}, Kinds = {header.get('Kinds', 'not given')}: needed "
                          "are columns, rows, (depth 1,) frames, kind of the last 'list' or 'time'")
    if len(sizes) == 4 and sizes[2] > 1:
        raise BadSequence(f"{path}: frames with {sizes[2]} planes; one plane per frame is readable")
    name = header.get("ElementType", "MET_UCHAR")
    if name not in ELEMENTS:
        raise BadSequence(f"{path}: ElementType = {name} is unknown; known are {', '.join(ELEMENTS)}")
    big_endian = header.get("BinaryDataByteOrderMSB", header.get("ElementByteOrderMSB", "False")).lower() == "true"
    channels = sequence_fields.integers(header.get("ElementNumberOfChannels", "1"), "ElementNumberOfChannels", path)
    layout = PixelLayout(sizes[-1], sizes[0], sizes[1], channels[0] if len(channels) == 1 else 0,
                         np.dtype(ELEMENTS[name]).newbyteorder(">" if big_endian else "<"),
                         header.get("UltrasoundImageOrientation", orientation.INSIDE))
    sequence_pixels.check_layout(layout, path)
    if header.get("BinaryData", "True").lower() != "true":
        raise BadSequence(f"{path}: BinaryData = {header['BinaryData']}: pixels written as text are not readable")
    return layout


def _read_pixels(stream: BinaryIO, header: dict[str, str], layout: PixelLayout, path: Path) -> bytes:
    source = stream
    if header["ElementDataFile"].upper() != "LOCAL":
        source = sequence_pixels.open_pixels(path, header["ElementDataFile"])
    with source:
        if header.get("CompressedData", "False").lower() != "true":
            return source.read(layout.byte_count)
        packed = source.read()
    return sequence_pixels.inflate(io.BytesIO(packed), layout.byte_count, "zlib", path)
