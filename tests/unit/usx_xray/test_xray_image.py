from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from usx_xray.refusal import Refused
from usx_xray.xray_image import acquisition_time, read_xray

RAMP = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)


@pytest.mark.parametrize(("attributes", "bright_first"), [
    ({}, False), ({"PhotometricInterpretation": "MONOCHROME1"}, True),
    ({"PixelIntensityRelationshipSign": 1}, True), ({"PixelIntensityRelationshipSign": -1}, False),
    ({"PhotometricInterpretation": "MONOCHROME1", "PixelIntensityRelationshipSign": -1}, False)])
def test_bone_is_bright(dx_file: Callable[..., Path], attributes: dict, bright_first: bool) -> None:
    pixels = read_xray(dx_file(**attributes)).pixels
    np.testing.assert_array_equal(pixels, RAMP.max() - RAMP.astype(float) if bright_first else RAMP)


def lut(entries: int, first: int, bits: int, data: bytes) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [entries, first, bits])
    item.add_new("LUTData", "OW", data)
    return [item]


def test_modality_table_is_applied(dx_file: Callable[..., Path]) -> None:
    table = (np.arange(4096, dtype=np.uint16)[::-1]).copy()
    image = read_xray(dx_file(ModalityLUTSequence=lut(4096, 0, 16, table.tobytes())))
    np.testing.assert_array_equal(image.pixels, table[RAMP])


def test_short_modality_table_is_refused(dx_file: Callable[..., Path]) -> None:
    with pytest.raises(Refused) as caught:
        read_xray(dx_file(ModalityLUTSequence=lut(4096, 0, 16, b"\0" * 100)))
    assert caught.value.reason == "bad_attribute"


@pytest.mark.parametrize("modality", ["MG", "CT", "US", "", None])
def test_other_modalities(dx_file: Callable[..., Path], modality: str | None) -> None:
    with pytest.raises(Refused) as caught:
        read_xray(dx_file(Modality=modality))
    assert caught.value.reason == "modality"


def test_representative_frame(dx_file: Callable[..., Path]) -> None:
    frames = np.arange(3 * 10 * 8, dtype=np.uint16).reshape(3, 10, 8)
    image = read_xray(dx_file(frames, Modality="XA", RepresentativeFrameNumber=2))
    np.testing.assert_array_equal(image.pixels, frames[1])


@pytest.mark.parametrize(("attributes", "expected"), [
    ({}, 0), ({"AcquisitionDate": "20260102", "AcquisitionTime": "030405.25"}, 1767323045_250000000),
    ({"AcquisitionDateTime": "20260102030405.250000+0100"}, 1767319445_250000000),
    ({"ContentDate": "20260102", "ContentTime": "0304", "TimezoneOffsetFromUTC": "-0200"}, 1767330240_000000000),
    ({"AcquisitionDate": "nonsense", "AcquisitionTime": "x"}, 0),
    ({"AcquisitionDate": "18000101", "AcquisitionTime": "00"}, 0)])
def test_time(attributes: dict, expected: int) -> None:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    assert acquisition_time(dataset) == expected


def test_sixteen_bit_stretch(dx_file: Callable[..., Path]) -> None:
    image = read_xray(dx_file())
    stretched = image.as_uint16()
    assert stretched.min() == 0 and stretched.max() == 65535
    assert (np.diff(stretched.ravel().astype(int)) > 0).all()


def test_nothing_tells_who_the_patient_is(dx_file: Callable[..., Path]) -> None:
    assert "Verysecret" not in repr(read_xray(dx_file())) and "424242" not in repr(read_xray(dx_file()))
