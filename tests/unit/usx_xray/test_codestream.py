import struct

import pytest

from usx_xray.codestream import frame_size, run_length_bytes
from usx_xray.refusal import Refused


def jpeg(marker: int, rows: int, columns: int, components: int = 1) -> bytes:
    app = b"\xff\xe0" + struct.pack(">H", 16) + b"J" * 14
    head = struct.pack(">HBHHB", 8 + 3 * components, 8, rows, columns, components)
    return b"\xff\xd8" + app + bytes([0xFF, marker]) + head + b"\x01\x11\x00" * components + b"\xff\xda"


def jpeg2000(rows: int, columns: int, components: int = 1) -> bytes:
    return (b"\xff\x4f\xff\x51" + struct.pack(">HH", 41, 0)
            + struct.pack(">8L", columns, rows, 0, 0, columns, rows, 0, 0)
            + struct.pack(">H", components) + b"\x07\x01\x01")


@pytest.mark.parametrize("frame", [jpeg(0xC0, 20, 30), jpeg(0xC3, 20, 30), jpeg(0xF7, 20, 30), jpeg2000(20, 30),
                                   b"\x00\x00\x00\x0cjP  " + b"\0" * 30 + jpeg2000(20, 30)])
def test_size_as_the_frame_states_it(frame: bytes) -> None:
    assert frame_size(frame) == (20, 30, 1)


@pytest.mark.parametrize("frame", [b"", b"\xff\xd8", b"\xff\xd8\xff", jpeg(0xC0, 1, 1)[:20], jpeg(0xC4, 5, 5),
                                   jpeg2000(4, 4)[:20], b"GIF89a" + b"\0" * 50, b"\xff\xd8" + b"\x00" * 40])
def test_damaged_frames_are_refused(frame: bytes) -> None:
    with pytest.raises(Refused) as caught:
        frame_size(frame)
    assert caught.value.reason == "bad_compressed_data"


def rle(*segments: bytes) -> bytes:
    offsets, position = [], 64
    for segment in segments:
        offsets.append(position)
        position += len(segment)
    return struct.pack("<16L", len(segments), *offsets, *([0] * (15 - len(segments)))) + b"".join(segments)


def test_run_length_counts_literals_and_runs() -> None:
    # 3 literal bytes, a run of 128 times one byte, a no-op
    assert run_length_bytes(rle(b"\x02abc\x81z\x80"), 10_000) == 131


def test_run_length_stops_at_the_limit() -> None:
    bomb = rle(b"\x81z" * 100_000)
    assert 1000 < run_length_bytes(bomb, 1000) <= 1000 + 128


@pytest.mark.parametrize("frame", [b"", b"\0" * 63, struct.pack("<16L", 16, *range(15)),
                                   struct.pack("<16L", 1, 9999, *([0] * 14)),
                                   struct.pack("<16L", 2, 70, 64, *([0] * 13))])
def test_run_length_tables_out_of_bounds_are_refused(frame: bytes) -> None:
    with pytest.raises(Refused):
        run_length_bytes(frame, 100)
