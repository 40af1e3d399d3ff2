"""Fan pictures from scan lines: round trip, closed form, and the pixels of a real device."""

import numpy as np
import pytest
import SimpleITK as sitk

from usx_common.errors import UsxError
from usx_phantom.probe_geometry import ProbeGeometry
from usx_phantom.scan_conversion import ScanConverter


def smooth_polar(lines: int, samples: int) -> np.ndarray:
    j, k = np.mgrid[:lines, :samples]
    return (120 + 60 * np.sin(j / 30.0) * np.cos(k / 45.0) + 40 * np.cos(k / 90.0)).astype(np.float32)


def test_round_trip_of_a_smooth_picture() -> None:
    converter = ScanConverter(ProbeGeometry().mask_fan, (480, 640), (256, 641))
    polar = smooth_polar(256, 641)
    back = converter.to_polar(converter.to_image(polar))
    error = np.abs(back - polar)[3:-3, 3:-3]  # at the rim a pixel outside the fan is black
    assert error.max() < 2.0
    assert error.mean() < 0.4  # whole grey levels


def test_a_pixel_shows_the_value_of_its_own_radius_and_angle() -> None:
    fan = (320.0, -144.0, 170.0, 620.0, -30.0, 30.0)
    lines, samples = 121, 451  # half a degree and one pixel apart
    radius = np.broadcast_to(np.linspace(170, 620, samples), (lines, samples))
    angle = np.broadcast_to(np.linspace(-30, 30, lines)[:, None], (lines, samples))
    by_radius = ScanConverter(fan, (480, 640), (lines, samples)).to_image((radius / 4.0).astype(np.float32))
    by_angle = ScanConverter(fan, (480, 640), (lines, samples)).to_image((angle * 3 + 120).astype(np.float32))
    for row, column in ((100, 300), (400, 500), (300, 150), (460, 320)):
        x, y = column - 320.0, row + 144.0
        assert by_radius[row, column] == pytest.approx(np.hypot(x, y) / 4.0, abs=0.6)
        assert by_angle[row, column] == pytest.approx(np.degrees(np.arctan(x / y)) * 3 + 120, abs=0.6)
    assert by_radius[5, 5] == 0


def test_outside_the_fan_all_is_black_and_the_mask_says_so() -> None:
    converter = ScanConverter(ProbeGeometry().mask_fan, (480, 640), (64, 64))
    image = converter.to_image(np.full((64, 64), 200, np.float32))
    assert ((image == 200) == converter.mask).all() and (image[~converter.mask] == 0).all()


@pytest.mark.parametrize("fan, polar", [
    ((320, -144, 620, 170, -30, 30), (64, 64)),
    ((320, -144, 170, 620, 30, -30), (64, 64)),
    ((320, np.nan, 170, 620, -30, 30), (64, 64)),
    ((320, -144, 170, 620, -30, 30), (1, 64)),
    ((9000, -144, 170, 620, -30, 30), (64, 64)),
])
def test_fans_that_make_no_picture_are_refused(fan: tuple, polar: tuple) -> None:
    with pytest.raises(UsxError):
        ScanConverter(fan, (480, 640), polar)


def test_arrays_of_another_shape_are_refused() -> None:
    converter = ScanConverter(ProbeGeometry().mask_fan, (480, 640), (64, 64))
    with pytest.raises(UsxError, match="polar image"):
        converter.to_image(np.zeros((64, 65), np.float32))
    with pytest.raises(UsxError, match="image of shape"):
        converter.to_polar(np.zeros((481, 640)))


@pytest.mark.real_data
def test_scan_lines_of_a_real_device_become_its_own_pictures(usx_data) -> None:
    """UltrasonixCurvilinear: radius 10..82 mm, -75..75 degrees, 0.15 mm; pixel (410, 87) is the face's middle."""
    folder = usx_data / "sweeps"
    lines = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "UltrasonixCurvilinearBrightnessData.igs.mha")))
    pictures = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "UltrasonixCurvilinearScanConvertedData.igs.mha")))
    fan = (409.5, 87 - 10 / 0.15, 10 / 0.15, 82 / 0.15, -75.0, 75.0)
    converter = ScanConverter(fan, pictures.shape[1:], lines.shape[1:])
    for polar, picture in zip(lines, pictures, strict=True):
        ours = converter.to_image(polar.astype(np.float32))[converter.mask].astype(float)
        mirrored = converter.to_image(polar[::-1].astype(np.float32))[converter.mask].astype(float)
        theirs = picture[converter.mask].astype(float)
        assert np.corrcoef(ours, theirs)[0, 1] > 0.98
        assert np.corrcoef(mirrored, theirs)[0, 1] < 0.6
