"""Image size as a compressed frame itself states it, read without decoding.

A decoder allocates what the compressed frame asks for, whatever the DICOM header says; so the two must agree before
any decoder sees the frame. Sources: ITU-T T.81 (JPEG) B.2.2, T.87 (JPEG-LS) C.2.2, T.800 (JPEG 2000) A.5.1,
DICOM PS3.5 annex G (RLE).
"""

from __future__ import annotations

import struct

from usx_xray.refusal import Refused

_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
_START_OF_CODESTREAM = b"\xff\x4f\xff\x51"
_NOT_FRAME_HEADERS = {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = {0x01, *range(0xD0, 0xD8)}


def frame_size(frame: bytes) -> tuple[int, int, int]:
    """(rows, columns, components) of a JPEG, JPEG-LS or JPEG 2000 frame. Raises Refused when none is stated."""
    try:
        if frame[:12].startswith(_JP2_SIGNATURE) or frame[:4] == _START_OF_CODESTREAM:
            return _jpeg2000_size(frame)
        if frame[:2] == b"\xff\xd8":
            return _jpeg_size(frame)
    except (struct.error, IndexError):
        pass
    raise Refused("bad_compressed_data", "the compressed frame has no readable frame header: it is damaged or of "
                                         "another kind than its transfer syntax says")


def run_length_bytes(frame: bytes, limit: int) -> int:
    """Bytes that an RLE frame unpacks to; counting stops beyond ``limit``. Raises Refused for a bad RLE header."""
    if len(frame) < 64:
        raise Refused("bad_compressed_data", f"the RLE frame has {len(frame)} bytes; its header alone needs 64")
    count, *offsets = struct.unpack("<16L", frame[:64])
    starts = offsets[:count]
    if not 1 <= count <= 15 or starts != sorted(starts) or starts[0] < 64 or starts[-1] > len(frame):
        raise Refused("bad_compressed_data", "the RLE frame's table of segments points outside of the frame")
    total = 0
    for start, end in zip(starts, [*starts[1:], len(frame)], strict=True):
        total += _packed_bits_length(frame, start, end, limit - total)
        if total > limit:
            break
    return total


def _packed_bits_length(data: bytes, position: int, end: int, limit: int) -> int:
    total = 0
    while position < end and total <= limit:
        control = data[position]
        if control < 128:
            total += control + 1
            position += control + 2
        else:
            total += 257 - control if control > 128 else 0
            position += 2 if control > 128 else 1
    return total


def _jpeg2000_size(frame: bytes) -> tuple[int, int, int]:
    start = frame.find(_START_OF_CODESTREAM)
    if start < 0:
        raise IndexError
    x_size, y_size, x_offset, y_offset = struct.unpack(">4L", frame[start + 8:start + 24])
    (components,) = struct.unpack(">H", frame[start + 40:start + 42])
    return y_size - y_offset, x_size - x_offset, components


def _jpeg_size(frame: bytes) -> tuple[int, int, int]:
    position = 2
    while True:
        if frame[position] != 0xFF:
            raise IndexError
        marker = frame[position + 1]
        if marker == 0xFF or marker in _BARE_MARKERS:
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack(">H", frame[position + 2:position + 4])
        if (0xC0 <= marker <= 0xCF and marker not in _NOT_FRAME_HEADERS) or marker == 0xF7:
            rows, columns, components = struct.unpack(">HHB", frame[position + 5:position + 10])
            return rows, columns, components
        position += 2 + length
