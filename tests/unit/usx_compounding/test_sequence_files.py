"""Sequence files in and out, every orientation, and every way in which a file can be broken."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usx_compounding import orientation
from usx_compounding.sequence import BadSequence, Sequence, matrix_text
from usx_compounding.sequence_files import read_sequence, write_sequence

KINDS = ("igs.mha", "igs.nrrd", "seq.nrrd")


def sample(frames=3, rows=4, columns=5, dtype=np.uint8):
    pixels = np.random.default_rng(1).integers(0, 200, (frames, rows, columns)).astype(dtype)
    fields = [{"ProbeToTrackerTransform": matrix_text(np.diag([1.0, 1.0, 1.0, 1.0]) + 0.1 * number * np.eye(4, k=3)),
               "ProbeToTrackerTransformStatus": "INVALID" if number == 1 else "OK",
               "Timestamp": repr(10.0 + 0.1 * number), "ImageStatus": "OK"} for number in range(frames)]
    return Sequence(pixels, fields, {"UltrasoundImageType": "BRIGHTNESS"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("code", [plane + depth for plane in orientation.CODES for depth in ("", "A", "D")])
def test_round_trip(tmp_path, kind, compressed, code):
    first = sample()
    write_sequence(tmp_path / f"a.{kind}", first, code, compressed)
    again = read_sequence(tmp_path / f"a.{kind}")
    assert np.array_equal(again.images, first.images)
    assert (again.fields, again.header) == (first.fields, first.header)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_element_types(tmp_path, dtype):
    for kind in KINDS:
        write_sequence(tmp_path / f"a.{kind}", sample(dtype=dtype))
        read = read_sequence(tmp_path / f"a.{kind}").images
        assert read.dtype == dtype and np.array_equal(read, sample(dtype=dtype).images)


@pytest.mark.parametrize(("code", "corner"), [("MF", (0, 0)), ("UF", (0, 4)), ("MN", (3, 0)), ("UN", (3, 4)),
                                              ("FM", (0, 0)), ("FU", (4, 0)), ("NM", (0, 3)), ("NU", (4, 3))])
def test_where_the_near_marked_corner_is_stored(code, corner):
    image = np.zeros((4, 5), dtype=np.uint8)
    image[0, 0] = 1  # near the transducer, at the unmarked side
    assert np.argwhere(orientation.from_inside(image, code)).tolist() == [list(corner)]
    assert np.array_equal(orientation.to_inside(orientation.from_inside(image, code), code), image)


@pytest.mark.parametrize("code", ["", "M", "MM", "FN", "XY", "MFX", "MFAA"])
def test_unknown_orientation_is_refused(code):
    with pytest.raises(orientation.UnknownOrientation, match="orientation"):
        orientation.parse(code)


def metafile(tmp_path, change=lambda text: text, data=b"\x01" * 60, header_end="ElementDataFile = LOCAL\n"):
    text = ("ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 5 4 3   \nKinds = domain domain list\n"
            "ElementType = MET_UCHAR\nUltrasoundImageOrientation = MFA\nSeq_Frame0000_Timestamp = 1.5 \n")
    path = tmp_path / "a.igs.mha"
    path.write_bytes(change(text + header_end).encode() + data)
    return path


def test_a_plain_metafile_with_trailing_blanks(tmp_path):
    sequence = read_sequence(metafile(tmp_path))
    assert sequence.images.shape == (3, 4, 5) and sequence.timestamp(0) == 1.5


BROKEN = {
    "cut header": (lambda t: t[:60], b"", "ends before"),
    "garbage": (lambda t: "\x00\x7f\n nonsense\n", b"", "not 'name = value'"),
    "empty": (lambda t: "", b"", "ends before"),
    "no sizes": (lambda t: t.replace("DimSize", "Dim"), b"", "no DimSize"),
    "words for sizes": (lambda t: t.replace("5 4 3", "5 x 3"), b"", "whole numbers"),
    "negative size": (lambda t: t.replace("5 4 3", "5 -4 3"), b"", "make no sequence"),
    "huge": (lambda t: t.replace("5 4 3", "90000 90000 90000"), b"", "limit"),
    "no list axis": (lambda t: t.replace("domain list", "domain domain"), b"", "list"),
    "thick frames": (lambda t: t.replace("5 4 3", "5 4 2 3").replace("domain list", "domain domain list"), b"",
                     "planes"),
    "unknown element": (lambda t: t.replace("MET_UCHAR", "MET_BANANA"), b"", "unknown"),
    "five channels": (lambda t: "ElementNumberOfChannels = 5\n" + t, b"", "per pixel"),
    "text pixels": (lambda t: t.replace("BinaryData = True", "BinaryData = False"), b"", "text"),
    "orientation": (lambda t: t.replace("MFA", "QQ"), b"", "orientation"),
    "frame beyond": (lambda t: t.replace("Frame0000", "Frame0009"), b"", "frame 9"),
    "few pixels": (lambda t: t, b"\x01" * 59, "cut short"),
    "damaged zlib": (lambda t: "CompressedData = True\n" + t, b"\x99" * 60, "damaged"),
    "short zlib": (lambda t: "CompressedData = True\n" + t, zlib.compress(b"\x01" * 30), "cut short"),
    "outside": (lambda t: t.replace("LOCAL", "../../etc/passwd"), b"", "refused"),
    "missing neighbour": (lambda t: t.replace("LOCAL", "a.raw"), b"", "cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_metafiles_are_refused_by_name(tmp_path, name):
    change, data, words = BROKEN[name]
    with pytest.raises(BadSequence, match=words) as told:
        read_sequence(metafile(tmp_path, change, data))
    assert "a.igs.mha" in str(told.value) and "\n" not in str(told.value)


def test_a_bomb_does_not_unfold(tmp_path):
    bomb = zlib.compress(b"\x00" * 50_000_000)
    sequence = read_sequence(metafile(tmp_path, lambda t: "CompressedData = True\n" + t, bomb))
    assert sequence.images.size == 60


@pytest.mark.parametrize(("text", "words"), [
    ("NRRD", "no NRRD"), ("NRRD0005\n", "cut short"), ("NRRD0005\ntype uchar\n\n", "name: value"),
    ("NRRD0005\ntype: uchar\nencoding: raw\n\n", "sizes"),
    ("NRRD0005\ntype: uchar\nsizes: 5 4 3\nencoding: hex\nkinds: domain domain list\n\n", "encoding"),
    ("NRRD0005\ntype: potato\nsizes: 5 4 3\nencoding: raw\n\n", "unknown"),
    ("NRRD0005\ntype: uchar\nsizes: 5 4 3\nencoding: raw\nkinds: domain list domain\n\n", "first or the last"),
    ("NRRD0005\ntype: uchar\nsizes: 5 4 3\nencoding: raw\nkinds: domain domain\n\n", "kinds"),
    ("NRRD0005\ntype: uchar\nsizes: 5 4 3\nencoding: gzip\nkinds: domain domain list\n\nxxxx", "damaged"),
])
def test_broken_nrrds_are_refused(tmp_path, text, words):
    path = tmp_path / "a.seq.nrrd"
    path.write_text(text)
    with pytest.raises(BadSequence, match=words):
        read_sequence(path)


def test_slicer_puts_the_frames_first(tmp_path):
    images = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    path = tmp_path / "a.seq.nrrd"
    header = "NRRD0005\ntype: unsigned char\nsizes: 3 5 4\nkinds: list domain domain\nencoding: raw\n\n"
    path.write_bytes(header.encode() + np.moveaxis(images, 0, -1).tobytes())
    assert np.array_equal(read_sequence(path).images, images)


def test_colour_becomes_grey(tmp_path):
    pixels = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    pixels[0, 0, 0], pixels[0, 1, 1] = (255, 255, 255), (0, 255, 0)
    path = tmp_path / "a.mha"
    path.write_bytes(b"NDims = 3\nDimSize = 2 2 1\nElementNumberOfChannels = 3\nElementType = MET_UCHAR\n"
                     b"ElementDataFile = LOCAL\n" + pixels.tobytes())
    assert read_sequence(path).images[0].tolist() == [[255, 0], [0, 149]]


@pytest.mark.parametrize("path", ["nothing.igs.mha", "picture.png"])
def test_missing_or_foreign_files(tmp_path, path):
    with pytest.raises(BadSequence):
        read_sequence(tmp_path / path)


def test_status_and_numbers_of_transforms():
    sequence = sample()
    assert [sequence.transform("ProbeToTracker", number).ok for number in range(3)] == [True, False, True]
    assert not sequence.transform("StylusToTracker", 0).ok
    sequence.fields[0]["ProbeToTrackerTransform"] = "1 2 3"
    with pytest.raises(BadSequence, match="frame 0"):
        sequence.transform("ProbeToTracker", 0)
    sequence.fields[0]["ProbeToTrackerTransformStatus"] = "INVALID"
    assert not sequence.transform("ProbeToTracker", 0).ok
    sequence.fields[2]["Timestamp"] = "nan"
    with pytest.raises(BadSequence, match="frame 2"):
        sequence.timestamps()


def test_line_ends_in_a_field_are_not_written(tmp_path):
    bad = sample()
    bad.fields[0]["Note"] = "a\nElementDataFile = LOCAL"
    with pytest.raises(BadSequence, match="one line"):
        write_sequence(tmp_path / "a.igs.mha", bad)
    assert not list(tmp_path.iterdir())


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400))
def test_no_garbage_escapes_as_another_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("garbage")
    for name in ("a.mha", "a.nrrd"):
        (folder / name).write_bytes((b"NRRD0005\n" if name.endswith("nrrd") else b"") + data)
        with pytest.raises(BadSequence):
            read_sequence(folder / name)
