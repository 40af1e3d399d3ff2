"""Probe calibrations: image -> probe, pixels to mm, from PLUS configuration files or plain YAML."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import yaml

from usx_common.errors import UsxError
from usx_common.transforms import Matrix, make_transform, nearest_rigid, parse_matrix

MAX_FILE_BYTES = 64 * 2**20
YAML_KEY = "image_to_probe"


class BadCalibration(UsxError):
    """A calibration that cannot be used."""


def read_calibration(path: str | Path, image: str = "Image", probe: str = "Probe") -> Matrix:
    """(4, 4) image -> probe matrix of a PLUS .xml (CoordinateDefinitions) or a .yaml with ``image_to_probe``.

    It is returned exactly as written: a real calibration is slightly sheared and that is part of it.
    Raises BadCalibration naming the file and what is missing or wrong.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise BadCalibration(f"calibration file {path} is larger than {MAX_FILE_BYTES} bytes")
        text = path.read_text(encoding="utf-8", errors="strict")
    except (OSError, UnicodeDecodeError) as error:
        raise BadCalibration(f"calibration file {path} cannot be read: {error}") from error
    numbers = _from_xml(text, path, image, probe) if path.suffix.lower() == ".xml" else _from_yaml(text, path)
    try:
        return parse_matrix(numbers, f"{YAML_KEY} of {path}")
    except UsxError as error:
        raise BadCalibration(str(error)) from error


def pixel_spacing(image_to_probe: Matrix) -> tuple[float, float]:
    """Size of a pixel along columns and rows, mm."""
    return float(np.linalg.norm(image_to_probe[:3, 0])), float(np.linalg.norm(image_to_probe[:3, 1]))


def display_frame(image_to_probe: Matrix) -> Matrix:
    """(4, 4) rigid frame of the image in the probe, mm: nearest to the directions of columns and rows, for display
    only.

    The third column of a calibration says nothing about pixels; some are mirrored there. Raises BadCalibration when
    columns and rows run the same way.
    """
    column, row = image_to_probe[:3, 0], image_to_probe[:3, 1]
    normal = np.cross(column, row)
    if np.linalg.norm(normal) < 1e-3 * np.linalg.norm(column) * np.linalg.norm(row):
        raise BadCalibration(f"image_to_probe = {image_to_probe.tolist()}: columns and rows run the same way")
    axes = np.column_stack([v / np.linalg.norm(v) for v in (column, row, normal)])
    return nearest_rigid(make_transform(axes, image_to_probe[:3, 3]))


def _from_xml(text: str, path: Path, image: str, probe: str) -> list[float]:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BadCalibration(f"calibration file {path} defines entities, which no PLUS configuration does: refused")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise BadCalibration(f"calibration file {path} is no XML: {error}") from error
    for element in root.iter("Transform"):
        if element.get("From") == image and element.get("To") == probe:
            return _numbers(element.get("Matrix", ""), path)
    raise BadCalibration(f"calibration file {path} has no <Transform From=\"{image}\" To=\"{probe}\" Matrix=...>")


def _from_yaml(text: str, path: Path) -> list[float]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadCalibration(f"calibration file {path} is no YAML: {str(error).splitlines()[0]}") from error
    found = _find(content)
    if found is None:
        raise BadCalibration(f"calibration file {path} has no '{YAML_KEY}'")
    if not isinstance(found, list):
        raise BadCalibration(f"'{YAML_KEY}' of {path} must be a list of 16 numbers")
    return _numbers(" ".join(str(number) for number in found), path)


def _find(content: object) -> object | None:
    """The value of the first key ``image_to_probe`` at any depth: it may sit inside a ROS parameter file."""
    if not isinstance(content, dict):
        return None
    if YAML_KEY in content:
        return content[YAML_KEY]
    return next((found for value in content.values() if (found := _find(value)) is not None), None)


def _numbers(text: str, path: Path) -> list[float]:
    try:
        return [float(number) for number in text.split()]
    except ValueError as error:
        raise BadCalibration(f"calibration file {path}: {text[:60]!r} are not numbers") from error
