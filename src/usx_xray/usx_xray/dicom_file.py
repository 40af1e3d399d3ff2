"""Opening a DICOM file that nobody vouches for: every size is checked before anything is decoded.

Threats met here: files longer than memory, deflated files that unpack without end, headers whose Rows x Columns do
not fit the pixel data, compressed frames that ask their decoder for another size than the header states, and plain
damage. Whatever is wrong comes out as one ``Refused``.
"""

from __future__ import annotations

import logging
import re
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.pixels import pixel_array

from usx_xray.codestream import frame_size, run_length_bytes
from usx_xray.refusal import Refused

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
RUN_LENGTH = "1.2.840.10008.1.2.5"
JPEG_FAMILY = {
    "1.2.840.10008.1.2.4.50": "JPEG baseline",
    "1.2.840.10008.1.2.4.51": "JPEG extended",
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless, first order",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
}
TRANSFER_SYNTAXES = (IMPLICIT, EXPLICIT, DEFLATED, RUN_LENGTH, *JPEG_FAMILY)

_Result = TypeVar("_Result")
_Elements = TypeVar("_Elements", bound=Dataset)

# pydicom's warnings quote values of the file, a patient's among them; they must not reach a log.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Limits:
    """Largest sizes accepted: of a file, of what a deflated file unpacks to, and of one decoded frame."""

    file_bytes: int = 512 * 2**20
    inflated_bytes: int = 512 * 2**20
    frame_bytes: int = 128 * 2**20
    columns_or_rows: int = 16384
    frames: int = 4096


@dataclass(frozen=True)
class PixelFormat:
    """What the header says of the pixels; only grey images of whole bytes come this far."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int

    @property
    def frame_bytes(self) -> int:
        return self.rows * self.columns * self.bits_allocated // 8


def read_header(path: Path, limits: Limits | None = None) -> FileDataset:
    """Everything before the pixel data. Raises Refused; no other exception escapes."""
    limits = limits or Limits()
    check_file_size(path, limits)
    meta = guarded(lambda: _parsed_elements(pydicom.filereader.read_file_meta_info(path)),
                   "the file's first part cannot be read")
    if _transfer_syntax(meta) == DEFLATED:
        guarded(lambda: _check_inflated_size(path, meta, limits.inflated_bytes), "the deflated part cannot be read")
    return guarded(lambda: _fully_parsed(pydicom.dcmread(path, stop_before_pixels=True)),
                   "the header cannot be read")


def check_file_size(path: Path, limits: Limits) -> None:
    """Raises Refused for a file that is missing, empty, or larger than ``limits.file_bytes``."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise Refused("unreadable", f"the file cannot be opened: {error.strerror}") from error
    if size == 0:
        raise Refused("empty_file", "the file is empty")
    if size > limits.file_bytes:
        raise Refused("too_large", f"the file has {size} bytes; at most {limits.file_bytes} are accepted")


def transfer_syntax(header: Dataset) -> str:
    """UID of the transfer syntax. Raises Refused for one that is missing or not on the list of accepted ones."""
    return _transfer_syntax(getattr(header, "file_meta", Dataset()))


def _transfer_syntax(meta: Dataset) -> str:
    uid = str(meta.get("TransferSyntaxUID", "") or "")
    if uid not in TRANSFER_SYNTAXES:
        # A damaged length makes the value run on into what follows, a patient's name among it: that is not repeated.
        shown = uid if re.fullmatch(r"[0-9.]{1,64}", uid) else "that is no UID"
        what = f"transfer syntax {shown}" if uid else "no TransferSyntaxUID (0002,0010)"
        raise Refused("transfer_syntax", f"the file has {what}; accepted are implicit and explicit little endian, "
                                         "deflated, RLE, JPEG, JPEG-LS and JPEG 2000")
    return uid


def pixel_format(header: Dataset, limits: Limits) -> PixelFormat:
    """Size and kind of the pixels. Raises Refused for what is missing, not grey, or beyond ``limits``."""
    rows, columns = whole_number(header, "Rows"), whole_number(header, "Columns")
    if "NumberOfFrames" in header and header.NumberOfFrames not in (None, ""):
        frames = whole_number(header, "NumberOfFrames")
    else:
        frames = 1
    if not (1 <= rows <= limits.columns_or_rows and 1 <= columns <= limits.columns_or_rows):
        raise Refused("image_size", f"the image has {rows} rows and {columns} columns; 1 .. "
                                    f"{limits.columns_or_rows} are accepted")
    if not 1 <= frames <= limits.frames:
        raise Refused("image_size", f"NumberOfFrames (0028,0008) is {frames}; 1 .. {limits.frames} are accepted")
    if "SamplesPerPixel" in header and whole_number(header, "SamplesPerPixel") != 1:
        raise Refused("not_grey", "SamplesPerPixel (0028,0002) is not 1: only grey images are read")
    photometric = str(header.get("PhotometricInterpretation", ""))
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refused("not_grey", f"PhotometricInterpretation (0028,0004) is {photometric[:16]!r}; MONOCHROME1 or "
                                  "MONOCHROME2 is needed")
    allocated, stored = whole_number(header, "BitsAllocated"), whole_number(header, "BitsStored")
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise Refused("pixel_format", f"BitsAllocated (0028,0100) {allocated} with BitsStored (0028,0101) {stored}: "
                                      "8 or 16 allocated bits are read")
    result = PixelFormat(rows, columns, frames, allocated, stored)
    if result.frame_bytes > limits.frame_bytes:
        raise Refused("image_size", f"one frame would need {result.frame_bytes} bytes; {limits.frame_bytes} are "
                                    "accepted")
    return result


class FrameSource:
    """The pixel data of one file, parsed once; decodes one frame at a time.

    Raises Refused, here and in ``frame``; no other exception escapes.
    """

    def __init__(self, path: Path, header: Dataset, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._stated = pixel_format(header, limits)
        check_file_size(path, limits)
        self._dataset = guarded(lambda: _fully_parsed(pydicom.dcmread(path)), "the pixel data cannot be read")
        if "PixelData" not in self._dataset:
            raise Refused("no_pixel_data", "the file holds no PixelData (7FE0,0010)")
        if not isinstance(self._dataset.PixelData, bytes):
            raise Refused("bad_pixel_data", "PixelData (7FE0,0010) is not a string of bytes")
        self._syntax = transfer_syntax(self._dataset)
        if self._syntax in (IMPLICIT, EXPLICIT, DEFLATED):
            _check_plain_length(len(self._dataset.PixelData), self._stated)

    def frame(self, index: int = 0) -> NDArray[Any]:
        """Stored values (rows, columns) of one frame, integer, before any look-up table."""
        stated = self._stated
        if not 0 <= index < stated.frames:
            raise Refused("no_such_frame", f"frame {index} was asked for; the file has {stated.frames}")
        if self._syntax not in (IMPLICIT, EXPLICIT, DEFLATED):
            _check_compressed_frame(self._dataset.PixelData, self._syntax, stated, index)
        pixels = guarded(lambda: pixel_array(self._dataset, index=index, raw=True),
                         "the pixel data cannot be decoded")
        if pixels.shape != (stated.rows, stated.columns):
            raise Refused("bad_pixel_data", f"the frame decoded to shape {pixels.shape}, the header says "
                                            f"({stated.rows}, {stated.columns})")
        return pixels


def read_frame(path: Path, header: Dataset, limits: Limits | None = None, index: int = 0) -> NDArray[Any]:
    """Stored values (rows, columns) of one frame of a file. Raises Refused; no other exception escapes."""
    return FrameSource(path, header, limits).frame(index)


def whole_number(header: Dataset, keyword: str) -> int:
    """An integer attribute. Raises Refused when it is missing or no whole number."""
    value = header.get(keyword)
    tag = pydicom.datadict.tag_for_keyword(keyword) or 0
    name = f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"
    if value is None or value == "":
        raise Refused("missing_attribute", f"{name} is missing")
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise Refused("bad_attribute", f"{name} is no whole number") from error


def guarded(action: Callable[[], _Result], what_failed: str) -> _Result:
    """Result of ``action``; any exception becomes Refused, its text kept to one line without values of the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return action()
    except Refused:
        raise
    except InvalidDicomError as error:
        raise Refused("not_dicom", "this is no DICOM file: the marker DICM at byte 128 is missing") from error
    except (MemoryError, RecursionError) as error:
        raise Refused("too_large", f"{what_failed}: {type(error).__name__}") from error
    except Exception as error:
        raise Refused("unreadable", f"{what_failed}: the file is damaged or breaks the standard "
                                    f"({type(error).__name__})") from error


def _fully_parsed(dataset: FileDataset) -> FileDataset:
    _parsed_elements(dataset.file_meta)
    return _parsed_elements(dataset)


def _parsed_elements(dataset: _Elements) -> _Elements:
    # pydicom converts values when they are first looked at, also those inside of sequences; doing so here keeps all
    # damage in one place.
    for element in dataset.iterall():
        _ = element.value
    return dataset


def _check_inflated_size(path: Path, meta: Dataset, limit: int) -> None:
    """Unpacks in small pieces, keeping none, and stops at the limit."""
    # The group length counts from behind its own 12 bytes, which follow 128 + 4 bytes of preamble and marker.
    start = 144 + whole_number(meta, "FileMetaInformationGroupLength")
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    with path.open("rb") as file:
        file.seek(start)
        while not unpacker.eof and (packed := unpacker.unconsumed_tail or file.read(65536)):
            try:
                total += len(unpacker.decompress(packed, 2**20))
            except zlib.error as error:
                raise Refused("bad_compressed_data", "the deflated part of the file is damaged") from error
            if total > limit:
                raise Refused("too_large", f"the deflated file unpacks to more than {limit} bytes")


def _check_plain_length(length: int, stated: PixelFormat) -> None:
    needed = stated.frame_bytes * stated.frames
    if length < needed:
        raise Refused("truncated", f"PixelData (7FE0,0010) has {length} bytes; {stated.rows} rows x {stated.columns} "
                                   f"columns x {stated.frames} frames need {needed}")
    if length >= needed + stated.frame_bytes:
        raise Refused("image_size", f"PixelData (7FE0,0010) has {length} bytes, more than a whole frame above the "
                                    f"{needed} that the header states")


def _check_compressed_frame(data: bytes, syntax: str, stated: PixelFormat, index: int) -> None:
    frame = guarded(lambda: get_frame(data, index, number_of_frames=stated.frames),
                    "the compressed pixel data has no such frame")
    if syntax == RUN_LENGTH:
        # A segment may be padded by a byte or two; more says that header and data disagree.
        unpacked = run_length_bytes(frame, stated.frame_bytes + 64)
        if not stated.frame_bytes <= unpacked <= stated.frame_bytes + 64:
            raise Refused("image_size", f"the RLE frame does not unpack to the {stated.frame_bytes} bytes that the "
                                        "header states")
        return
    rows, columns, components = frame_size(frame)
    if (rows, columns, components) != (stated.rows, stated.columns, 1):
        raise Refused("image_size", f"the compressed frame is {rows} x {columns} x {components}, the header says "
                                    f"{stated.rows} x {stated.columns} x 1")
