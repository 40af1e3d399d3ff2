"""People as folders of vertebra meshes, checked before a shape model learns from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, read_mesh, volume
from usx_phantom.mesh_import import AXES, SUFFIXES, spinous_is_posterior

LARGEST_MM, SMALLEST_MM = 250.0, 30.0
STEP_MM = (15.0, 70.0)
_MEAN_OF = re.compile(r"mean(\d+)$")


class BadMeshes(UsxError):
    """A folder of meshes that no shape model can be learned from."""


@dataclass(frozen=True)
class Subject:
    """One person: ``meshes`` level -> Mesh, mm, LPS, some of L1..L5.

    ``people``: 1, or of how many people the shapes are the mean. ``posed``: whether the levels lie in one frame, one
    below the other, so that their relative poses mean something.
    """

    name: str
    meshes: dict[str, Mesh]
    people: int = 1
    posed: bool = True


def read_subjects(folder: Path, axes: str = "RAS", exclude: Sequence[str] = ()) -> list[Subject]:
    """The people of ``folder``: every folder in it that holds L1..L5 (all or some) as PLY or STL, mm.

    ``axes``: the files' axes, RAS or LPS. ``exclude``: names of folders left out, or FOLDER/LEVEL for one mesh. A
    folder whose name ends in mean and a number (mean87) is the mean of that many people. Raises BadMeshes naming the
    file for an open mesh, sizes that are not mm, a spinous process that does not point to the back, levels out of
    order, an exclusion that names nothing, or a folder without any subject.
    """
    if axes not in AXES:
        raise BadMeshes(f"axes {axes!r} must be one of {', '.join(AXES)}")
    if not folder.is_dir():
        raise BadMeshes(f"mesh folder {folder} does not exist")
    unused = set(exclude)
    subjects = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = _level_files(place)
        if place.name in exclude:
            unused.discard(place.name)
            continue
        left_out = {level for level in files if f"{place.name}/{level}" in exclude}
        unused -= {f"{place.name}/{level}" for level in left_out}
        meshes = {level: _read(path, axes) for level, path in files.items() if level not in left_out}
        if meshes:
            subjects.append(_subject(place, meshes))
    if unused:
        raise BadMeshes(f"{folder} has no {', '.join(sorted(unused))} to exclude: name its folders, or FOLDER/LEVEL")
    if not subjects:
        raise BadMeshes(f"{folder} has no folder with L1.ply .. L5.ply (or .stl) of a person in it")
    return subjects


def mirrored(mesh: Mesh) -> Mesh:
    """The mesh with left and right exchanged; outward faces stay outward."""
    return mesh.transformed(np.diag([-1.0, 1.0, 1.0, 1.0]))


def _level_files(place: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(place.iterdir()):
        level = path.stem.upper()
        if level not in LEVELS or path.suffix.lower() not in SUFFIXES:
            continue
        if level in files:
            raise BadMeshes(f"{place} has {level} twice ({files[level].name}, {path.name}): keep one")
        files[level] = path
    return {level: files[level] for level in LEVELS if level in files}


def _read(path: Path, axes: str) -> Mesh:
    mesh = read_mesh(path)
    if not mesh.is_watertight:
        raise BadMeshes(f"{path} is not closed: fill its holes, make it anew from the segmentation, or exclude it")
    mesh = mesh.transformed(AXES[axes])
    if volume(mesh) < 0.0:
        mesh = Mesh(mesh.vertices, mesh.faces[:, ::-1])
    extent = float(np.ptp(mesh.vertices, axis=0).max())
    if not SMALLEST_MM <= extent <= LARGEST_MM:
        raise BadMeshes(f"{path} is {extent:.3g} mm wide; a vertebra is 60 to 130 mm: convert it to mm")
    if not spinous_is_posterior(mesh):
        other = "RAS" if axes == "LPS" else "LPS"
        raise BadMeshes(f"{path}: the spinous process does not point to the back when the axes are {axes}: try "
                        f"--axes {other}, or turn the mesh")
    return mesh


def _subject(place: Path, meshes: dict[str, Mesh]) -> Subject:
    heights = {level: float(mesh.vertices[:, 2].mean()) for level, mesh in meshes.items()}
    drops = [(upper, lower, (heights[upper] - heights[lower]) / (LEVELS.index(lower) - LEVELS.index(upper)))
             for upper, lower in pairwise(meshes)]
    for upper, lower, drop in drops:
        if drop < -STEP_MM[0]:
            raise BadMeshes(f"{place}: {upper} lies {-drop:.0f} mm below {lower} along z: z must point to the head, "
                            "and L1 be the uppermost")
    posed = len(meshes) > 1 and all(STEP_MM[0] <= drop <= STEP_MM[1] for *_, drop in drops)
    found = _MEAN_OF.search(place.name.lower())
    people = int(found.group(1)) if found else 1
    if not 1 <= people <= 100_000:
        raise BadMeshes(f"{place} would be the mean of {people} people: rename the folder, or exclude it")
    return Subject(place.name, meshes, people, posed)
