"""Real ultrasound frames to compare with: three recordings of the PLUS toolkit's test data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_phantom.frame_measures import FrameSet
from usx_phantom.scan_conversion import ScanConverter

BRIGHTNESS = "UltrasonixCurvilinearBrightnessData.igs.mha"
CONVERTED = "UltrasonixCurvilinearScanConvertedData.igs.mha"
# radius 10 to 82 mm, -75 to 75 degrees, pixels of 0.15 mm; pixel (410, 87) is the middle of the face, half a pixel off
FAN = (409.5, 87 - 10 / 0.15, 10 / 0.15, 82 / 0.15, -75.0, 75.0)
# name, file, rows and columns of the picture's active part, mm per row and per column, mm of near field to leave out
RECORDINGS = (
    ("bone in vivo", "BoneUltrasound_L14.igs.mha", (0, 616), (178, 638), 0.0854, 0.0854, 8.0),
    ("spine phantom", "SpinePhantomFreehand.igs.mha", (12, 602), (187, 632), 0.0840, 0.0786, 14.0),
)
# lines and samples of the curvilinear frames that show neither the face nor an object: homogeneous clutter and noise
QUIET = ((0, 15, 900, 1200), (15, 30, 1100, 1600), (20, 35, 1300, 1700), (85, 95, 1000, 1600))


def read_frames(folder: Path) -> list[FrameSet]:
    """Frames of bone in the recordings of a folder, as scan lines. Raises UsxError naming a file that is missing."""
    sets = []
    for name, file, (top, bottom), (left, right), row_mm, column_mm, skip_mm in RECORDINGS:
        pixels = _read(folder / file)
        if pixels.ndim != 3 or pixels.shape[1] < bottom or pixels.shape[2] < right:
            raise UsxError(f"{folder / file}: {pixels.shape} pixels; at least {bottom} rows and {right} columns needed")
        lines = np.ascontiguousarray(pixels[:, top:bottom, left:right].transpose(0, 2, 1))
        sets.append(FrameSet(name, lines, row_mm, column_mm, skip_mm))
    return sets


def read_quiet_patches(folder: Path) -> list[NDArray[np.uint8]]:
    """Homogeneous patches of curvilinear scan lines whose grey is 20 * envelope^(1/4), before scan conversion."""
    lines = _read(folder / BRIGHTNESS)
    return [frame[a:b, c:d] for frame in lines for a, b, c, d in QUIET]


def scan_conversion_correlations(folder: Path) -> list[float]:
    """Correlation of the curvilinear frames as this package converts them with the device's own pictures."""
    lines, pictures = _read(folder / BRIGHTNESS), _read(folder / CONVERTED)
    converter = ScanConverter(FAN, pictures.shape[1:], lines.shape[1:])
    return [float(np.corrcoef(converter.to_image(polar.astype(np.float32))[converter.mask],
                              picture[converter.mask])[0, 1]) for polar, picture in zip(lines, pictures, strict=True)]


def _read(path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        raise UsxError(f"{path} is missing: give the folder of the PLUS recordings with --data or USX_DATA")
    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise UsxError(f"{path} cannot be read: {str(error).splitlines()[-1]}") from error
