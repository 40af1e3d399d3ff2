import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from usx_xray.dicom_file import Limits, read_frame, read_header
from usx_xray.refusal import Refused

Maker = Callable[..., Path]


def read(path: Path, limits: Limits | None = None) -> np.ndarray:
    return read_frame(path, read_header(path, limits), limits)


def test_plain_pixels_come_back(dx_file: Maker) -> None:
    pixels = np.random.default_rng(0).integers(0, 65535, (37, 21)).astype(np.uint16)
    np.testing.assert_array_equal(read(dx_file(pixels)), pixels)


def test_run_length_pixels_come_back(dx_file: Maker) -> None:
    pixels = np.repeat(np.arange(40, dtype=np.uint16)[:, None], 30, axis=1)
    path = dx_file(pixels)
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)
    np.testing.assert_array_equal(read(path), pixels)


@pytest.mark.parametrize(("attributes", "reason"), [
    ({"Rows": 0}, "image_size"),
    ({"Rows": 49}, "truncated"),
    ({"Rows": 24}, "image_size"),
    ({"Rows": None}, "missing_attribute"),
    ({"Columns": 65535}, "image_size"),
    ({"NumberOfFrames": "2"}, "truncated"),
    ({"NumberOfFrames": "0"}, "image_size"),
    ({"NumberOfFrames": "99999"}, "image_size"),
    ({"SamplesPerPixel": 3}, "not_grey"),
    ({"PhotometricInterpretation": "RGB"}, "not_grey"),
    ({"BitsAllocated": 32}, "pixel_format"),
    ({"BitsAllocated": 12}, "pixel_format"),
    ({"BitsStored": 17}, "pixel_format"),
    ({"PixelData": None}, "no_pixel_data"),
    ({"PixelData": b""}, "bad_pixel_data|truncated"),
])
def test_headers_that_do_not_fit_the_pixels(dx_file: Maker, attributes: dict, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        read(dx_file(**attributes))
    assert caught.value.reason in reason.split("|")


def test_missing_empty_and_long_files(tmp_path: Path, dx_file: Maker) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for path, limits, reason in [(tmp_path / "none", None, "unreadable"), (empty, None, "empty_file"),
                                 (dx_file(), Limits(file_bytes=100), "too_large"), (tmp_path, None, "unreadable")]:
        with pytest.raises(Refused) as caught:
            read_header(path, limits)
        assert caught.value.reason == reason


def test_one_frame_larger_than_allowed(dx_file: Maker) -> None:
    with pytest.raises(Refused) as caught:
        read(dx_file(), Limits(frame_bytes=1000))
    assert caught.value.reason == "image_size"


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.100", "1.2.3", "1.2.840.10008.1.2.4.201"])
def test_other_transfer_syntaxes(dx_file: Maker, uid: str) -> None:
    path = dx_file()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"1.2.840.10008.1.2.1\0", uid.encode()[:20].ljust(20, b"\0"), 1))
    with pytest.raises(Refused) as caught:
        read(path)
    assert caught.value.reason in ("transfer_syntax", "unreadable")


def deflated(path: Path, body: bytes) -> None:
    """Replaces all behind the file meta information by the deflated ``body``."""
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    meta = data[:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = meta.replace(b"UI\x14\x001.2.840.10008.1.2.1.99", b"UI\x16\x001.2.840.10008.1.2.1.99")
    length = len(meta) - 144
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(meta[:140] + length.to_bytes(4, "little") + meta[144:] + packer.compress(body) + packer.flush())


def test_deflated_file_and_bomb(dx_file: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    path = dx_file()
    expected = read(path)
    data = path.read_bytes()
    body = data[144 + int.from_bytes(data[140:144], "little"):]
    deflated(path, body)
    np.testing.assert_array_equal(read(path), expected)
    plain = dx_file(name="bomb.dcm")
    deflated(plain, b"\0" * 30_000_000)
    assert plain.stat().st_size < 100_000
    with monkeypatch.context() as patch, pytest.raises(Refused) as gone:  # deleted after its first part was read
        patch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(FileNotFoundError("gone")))
        read_header(path)
    assert gone.value.reason == "unreadable"
    with pytest.raises(Refused) as caught:
        read_header(plain, Limits(inflated_bytes=1_000_000))
    assert caught.value.reason == "too_large"


def test_compressed_frame_of_another_size_never_reaches_a_decoder(dx_file: Maker,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    path = dx_file()
    dataset = pydicom.dcmread(path)
    size = (60_000).to_bytes(4, "big")
    frame = b"\xff\x4f\xff\x51" + (41).to_bytes(2, "big") + b"\0\0" + size + size + b"\0" * 24 + b"\0\x01" + b"\0" * 40
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    monkeypatch.setattr("usx_xray.dicom_file.pixel_array", lambda *a, **k: pytest.fail("decoded"))
    with pytest.raises(Refused) as caught:
        read(path)
    assert caught.value.reason == "image_size"


@pytest.mark.parametrize("representation", [b"U\0", b"\0\0", b"XX"])
def test_an_unknown_value_representation_in_the_first_part_is_refused(dx_file: Maker, tmp_path: Path,
                                                                      representation: bytes) -> None:
    original = dx_file(np.zeros((6, 5), np.uint16)).read_bytes()
    tag = b"\x02\x00\x10\x00"  # TransferSyntaxUID
    path = tmp_path / "damaged.dcm"
    path.write_bytes(original.replace(tag + b"UI", tag + representation, 1))
    with pytest.raises(Refused):
        read(path)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_gives_an_image_or_one_refusal(dx_file: Maker, tmp_path: Path, data: st.DataObject) -> None:
    original = dx_file(np.zeros((6, 5), np.uint16)).read_bytes()
    damaged = bytearray(original[:data.draw(st.integers(1, len(original)))])
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.dcm"
    path.write_bytes(damaged)
    try:
        pixels = read(path)
    except Refused as error:
        assert error.reason and "\n" not in str(error)
    else:
        assert pixels.ndim == 2 and pixels.size > 0
