"""One X-ray out of a DICOM file: its grey values with bone bright, its geometry and its time."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

from usx_xray.dicom_file import Limits, guarded, pixel_format, read_frame, read_header
from usx_xray.geometry import GeometryOverrides, XrayGeometry, geometry_of
from usx_xray.refusal import Refused

MODALITIES = ("CR", "DX", "XA", "RF")


@dataclass(frozen=True)
class XrayImage:
    """``pixels``: (rows, columns) float32; more attenuation is brighter where the file says which sign it has.

    ``stamp_ns``: nanoseconds since 1970 of the acquisition, 0 where the file does not say; ``uid``: SOP instance;
    ``notes``: what was done and where figures came from. Nothing here tells who the patient is.
    """

    pixels: NDArray[np.float32]
    geometry: XrayGeometry
    stamp_ns: int = 0
    uid: str = ""
    modality: str = ""
    notes: tuple[str, ...] = ()

    def as_uint16(self) -> NDArray[np.uint16]:
        """Grey values stretched over 0 .. 65535, (rows, columns)."""
        low, high = float(self.pixels.min()), float(self.pixels.max())
        scale = 65535.0 / (high - low) if high > low else 0.0
        return np.rint((self.pixels - low) * scale).astype(np.uint16)


def read_xray(path: Path, overrides: GeometryOverrides | None = None, limits: Limits | None = None) -> XrayImage:
    """X-ray of one file. Raises Refused with a reason for anything else; no other exception escapes."""
    limits = limits or Limits()
    header = read_header(path, limits)
    return xray_of_header(path, header, overrides, limits)


def xray_of_header(path: Path, header: Dataset, overrides: GeometryOverrides | None = None,
                   limits: Limits | None = None) -> XrayImage:
    """As ``read_xray``, for a header that has been read."""
    limits = limits or Limits()
    modality = str(header.get("Modality", "") or "")
    if modality not in MODALITIES:
        raise Refused("modality", f"Modality (0008,0060) is {modality[:16]!r}; X-rays are one of "
                                  f"{', '.join(MODALITIES)}")
    stated = pixel_format(header, limits)
    geometry = geometry_of(header, overrides)
    frame, frame_note = _frame_to_read(header, stated.frames)
    stored = read_frame(path, header, limits, frame)
    pixels, notes = _grey_values(stored, header)
    return XrayImage(pixels, geometry, acquisition_time(header), str(header.get("SOPInstanceUID", "") or ""), modality,
                     (*frame_note, *notes))


def acquisition_time(header: Dataset) -> int:
    """Nanoseconds since 1970 (UTC) of the acquisition, else of the content, else of the series; 0 if unknown.

    A time without TimezoneOffsetFromUTC is taken as UTC, so that the result does not depend on the machine.
    """
    offset = str(header.get("TimezoneOffsetFromUTC", "") or "")
    whole = str(header.get("AcquisitionDateTime", "") or "")
    candidates = [(whole[:8], whole[8:].split("+")[0].split("-")[0], whole[8:][-5:] if len(whole) > 13 else "")]
    for name in ("Acquisition", "Content", "Series"):
        candidates.append((str(header.get(name + "Date", "") or ""), str(header.get(name + "Time", "") or ""), ""))
    for date, time, own_offset in candidates:
        try:
            return _nanoseconds(date, time, own_offset if own_offset[:1] in ("+", "-") else offset)
        except ValueError:
            continue
    return 0


def _nanoseconds(date: str, time: str, offset: str) -> int:
    whole, _, fraction = time.partition(".")
    moment = datetime.datetime.strptime(date + whole.ljust(6, "0"), "%Y%m%d%H%M%S")
    moment = moment.replace(tzinfo=datetime.timezone.utc)
    seconds = int(moment.timestamp())
    if offset:
        sign = -1 if offset[0] == "-" else 1
        seconds -= sign * (int(offset[1:3]) * 3600 + int(offset[3:5]) * 60)
    nanoseconds = int(fraction[:9].ljust(9, "0")) if fraction else 0
    if not 0 <= seconds < 2**31:
        raise ValueError("time outside of what a ROS stamp holds")
    return seconds * 10**9 + nanoseconds


def _frame_to_read(header: Dataset, frames: int) -> tuple[int, tuple[str, ...]]:
    if frames == 1:
        return 0, ()
    try:
        chosen = int(header.get("RepresentativeFrameNumber") or header.get("RecommendedDisplayFrameNumber") or 1)
    except (TypeError, ValueError):
        chosen = 1
    chosen = chosen if 1 <= chosen <= frames else 1
    return chosen - 1, (f"frame {chosen} of {frames} is used",)


def _grey_values(stored: NDArray, header: Dataset) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Modality look-up table, then the inversion that makes strong attenuation bright."""
    _check_modality_table(header)
    values = guarded(lambda: np.asarray(apply_modality_lut(stored, header), np.float32),
                     "the modality look-up table cannot be applied")
    notes = ["modality look-up table applied"] if "ModalityLUTSequence" in header else []
    if not np.isfinite(values).all():
        raise Refused("bad_pixel_data", "the modality look-up table gives values that are not finite")
    if _bone_is_dark(header):
        values = float(values.max()) + float(values.min()) - values
        notes.append("grey values inverted: bone is bright")
    return values, tuple(notes)


def _bone_is_dark(header: Dataset) -> bool:
    """PixelIntensityRelationshipSign says it where it is given, the display convention otherwise.

    Sign 1: lower values are less X-ray intensity, that is more bone; so bone is dark in the stored values.
    """
    sign = header.get("PixelIntensityRelationshipSign")
    if sign in (1, -1):
        return bool(sign == 1)
    return str(header.get("PhotometricInterpretation", "")) == "MONOCHROME1"


def _check_modality_table(header: Dataset) -> None:
    if "ModalityLUTSequence" not in header:
        return
    tables = header.ModalityLUTSequence
    try:
        table = tables[0]
        entries = int(table.LUTDescriptor[0]) or 65536
        bits = int(table.LUTDescriptor[2])
        data = table.LUTData
        held = len(data) // (1 if bits <= 8 and len(data) == entries else 2) if isinstance(data, bytes) else len(data)
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise Refused("bad_attribute", "ModalityLUTSequence (0028,3000) lacks a usable descriptor or data") from error
    if held < entries or not 8 <= bits <= 16:
        raise Refused("bad_attribute", f"the modality look-up table holds {held} of the {entries} entries that its "
                                       "descriptor states")
