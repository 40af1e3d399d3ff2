"""What a lumbar spine looks like: checks that catch wrong axes, units and levels before anything is made of meshes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh

# Extents (mm) along left-right, front-back and cranial-caudal: 45 real vertebrae, widened by a third at both ends.
EXTENTS = ((40.0, 140.0), (50.0, 130.0), (28.0, 95.0))
WAYS = ("from left to right", "from front to back", "from head to foot")


class BadAnatomy(UsxError):
    """Meshes that are not a lumbar spine in the axes that were named."""


def levels_of(meshes: dict[str, Mesh]) -> list[str]:
    """Those of L1..L5 that are there, from head to foot."""
    return [level for level in LEVELS if level in meshes]


def middle_level(meshes: dict[str, Mesh]) -> str:
    """L3, or the level in the middle of those that are there."""
    levels = levels_of(meshes)
    return "L3" if "L3" in levels else levels[len(levels) // 2]


def check_size(name: str, mesh: Mesh) -> None:
    """Raise BadAnatomy unless the largest extent of `mesh` is that of a vertebra in millimetres."""
    extent = mesh.vertices.max(0) - mesh.vertices.min(0)
    if extent.max() < 30.0 or extent.max() > 250.0:
        raise BadAnatomy(f"{name} is {extent.max():.3g} mm wide; a vertebra is 60 to 130 mm: convert it to mm")


def check_proportions(name: str, mesh: Mesh, hint: str) -> None:
    """Raise BadAnatomy with `hint` where `mesh` (LPS mm) is too small or large along one axis: a wrong spacing."""
    extent = mesh.vertices.max(0) - mesh.vertices.min(0)
    for way, size, (low, high) in zip(WAYS, extent, EXTENTS, strict=True):
        if not low <= size <= high:
            raise BadAnatomy(f"{name} measures {size:.3g} mm {way}; a vertebra measures {low:g} to {high:g}: {hint}")


def check_order(name: str, meshes: dict[str, Mesh]) -> None:
    """Raise BadAnatomy unless the levels of `meshes` (LPS mm) lie one below the other as far apart as in one spine."""
    levels = levels_of(meshes)
    for upper, lower in pairwise(levels):
        gap = float(meshes[upper].vertices[:, 2].mean() - meshes[lower].vertices[:, 2].mean())
        if gap <= 0.0:
            raise BadAnatomy(f"{name}: {upper} lies {-gap:.0f} mm below {lower} along z: z must point to the head")
        gap /= LEVELS.index(lower) - LEVELS.index(upper)
        if not 15.0 <= gap <= 70.0:
            raise BadAnatomy(f"{name}: {upper} and {lower} are {gap:.0f} mm apart; "
                             "neighbours are 25 to 45 mm apart in one spine")


def check_posterior(name: str, meshes: dict[str, Mesh], axes: str, hint: str) -> None:
    """Raise BadAnatomy with `hint` where a spinous process does not point to +y of LPS; `axes`: those assumed."""
    for level, mesh in meshes.items():
        if not spinous_is_posterior(mesh):
            raise BadAnatomy(f"{name}: the spinous process of {level} does not point to the back when the axes are "
                             f"{axes}: {hint}")


def spinous_is_posterior(mesh: Mesh) -> bool:
    """Whether a vertebra in LPS axes has its heavy body at -y and its thin spinous process at +y.

    The centre of mass of a lumbar vertebra lies before the middle of its bounding box, by 2 to 16 % of its depth
    (41 real ones), and within 6 % of the middle from left to right; it is never tallest along z.
    """
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    offset = (centre_of_mass(mesh) - 0.5 * (low + high)) / (high - low)
    flat = (high - low)[2] < 0.9 * max(high[:2] - low[:2])
    return bool(flat and offset[1] < -0.005 and abs(offset[0]) < 0.1)


def centre_of_mass(mesh: Mesh) -> np.ndarray:
    """(3,) mm centre of the solid that a closed mesh bounds."""
    origin = mesh.vertices.mean(0)
    a, b, c = (mesh.vertices[mesh.faces[:, i]] - origin for i in range(3))
    sixths = np.einsum("ij,ij->i", a, np.cross(b, c))
    return origin + (sixths[:, None] * (a + b + c)).sum(0) / (4.0 * sixths.sum())
