"""Build data/posterior_template.json: the posterior surface of the mean vertebra of each level.

The shapes are the digital phantom's mean vertebrae (usx_phantom), so no patient's anatomy is stored. The template
tells which part of a posterior surface belongs to which body, and where that surface lies against the body.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from usx_common.clouds import largest_cluster, voxel_downsample
from usx_common.levels import LEVEL_NAMES
from usx_common.meshes import Mesh, sample_surface
from usx_registration.bodies import Outline, mean_spacings, measure_outlines
from usx_registration.surfaces import visible_mask

DEFAULT_OUT = Path(__file__).parent / "data" / "posterior_template.json"
SAMPLES = 60000
SLAB_MM = 4.0


def body_outline(surface: NDArray, label: int) -> Outline:
    """Outline of the body of a vertebra in the mid-sagittal plane; ``surface`` (N, 3) mm, LPS, upright, dense.

    In a thin slab about the mid-plane the canal parts the body from the arch, and the body is the anterior part.
    """
    slab = surface[np.abs(surface[:, 0]) < SLAB_MM]
    parts: list[NDArray] = []
    while len(slab) > 200 and len(parts) < 2:
        mask = largest_cluster(slab, 1.6)
        parts.append(slab[mask])
        slab = slab[~mask]
    body = min(parts, key=lambda part: part[:, 1].mean())
    outlines = measure_outlines(body[:, 1:], np.full(len(body), label), np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    return outlines[label]


def level_template(mesh: Mesh, label: int, voxel: float) -> dict:
    """Template of one level from a mesh in mm with LPS axes, its mid-plane at x = 0."""
    surface = sample_surface(mesh, SAMPLES, seed=label)
    outline = body_outline(surface, label)
    seen = surface[visible_mask(surface, [0, 1, 0], [0, 0, 1])]
    offset = voxel_downsample(seen, voxel)
    plane = offset[:, 1:] - outline.centre
    local = np.column_stack([offset[:, 0], plane @ outline.back, plane @ outline.up])
    return {"height": round(outline.height, 2), "depth": round(outline.depth, 2),
            "points": np.round(local, 1).tolist()}


def build(voxel: float) -> dict:
    """The whole template; lengths in mm, axes of the body (x left, y posterior, z cranial), origin at its centre."""
    from usx_phantom.vertebra import mean_vertebra

    levels, centres = {}, []
    for label, name in LEVEL_NAMES.items():
        mean = mean_vertebra(name)
        levels[name] = level_template(_mesh(mean.shape.solid()), label, voxel)
        centres.append(np.asarray(mean.centre))
    for name, spacing in zip(levels, mean_spacings(centres), strict=True):
        levels[name]["spacing"] = round(spacing, 2)
    return {"source": "mean vertebrae of usx_phantom", "voxel": voxel, "levels": levels}


def _mesh(solid: Any) -> Mesh:
    from usx_phantom.marching_cubes import iso_surface

    low, high = solid.bounds()
    spacing = 0.8
    size = tuple(int(n) for n in np.ceil((high - low) / spacing) + 1)
    return iso_surface(solid.grid(low, spacing, size), low, spacing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="example: python -m "
                                     "usx_registration.build_template --voxel 2.0")
    parser.add_argument("--voxel", type=float, default=2.0, help="distance between template points in mm")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="file to write (default: inside the package)")
    arguments = parser.parse_args()
    arguments.out.write_text(json.dumps(build(arguments.voxel), separators=(",", ":")) + "\n")
    print(f"wrote {arguments.out} ({arguments.out.stat().st_size / 1024:.0f} KiB)")


if __name__ == "__main__":
    main()
