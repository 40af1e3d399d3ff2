"""Fits the numbers of the parametric vertebra to meshes: how data/mean_shapes.json was made.

`fit_mean_shapes --meshes DIR --out FILE` with the mean L2..L5 of the morphable lumbar model (A. Clouthier,
github.com/aclouthier/morphable-lumbar-model, MIT licence) as PLY, mm, RAS. Takes about ten minutes; with
`--start data/mean_shapes.json` only the sizes of the bodies are matched again, in a minute or two.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.meshes import Mesh, read_mesh
from usx_phantom.implicit_surface import BODY_NAMES, CANAL_NAMES
from usx_phantom.mesh_import import AXES
from usx_phantom.morphometry import measure
from usx_phantom.published_morphometry import published
from usx_phantom.shape_comparison import surface_samples
from usx_phantom.template import shape_mesh
from usx_phantom.vertebra import MIDLINE_PARTS, PARTS, VertebraShape, first_guess, read_mean_shapes

# Each level starts from its neighbour; L3 from the hand-made guess.
ORDER = (("L3", None), ("L2", "L3"), ("L4", "L3"), ("L5", "L4"))
SURFACE, SATURATION = 2600, 6.0
WEIGHTS, EVALUATIONS = (0.3, 0.1, 0.04), 14
COMMENT = ("Numbers of the mean L2..L5 (mm, rad; columns in vertebra.py), fitted by fit_mean_shapes (shape_fitting.py) "
           "to the mean of 87 patients of the morphable lumbar model of A. Clouthier (github.com/aclouthier/"
           "morphable-lumbar-model, MIT licence). Position: body centre (y posterior, z cranial) and tilt (deg) in "
           "that mean spine.")
# Numbers of the body that set its sizes, and by how much (mm, or of 1) each may be expected to change.
SIZES = {"half_width": 0.7, "half_depth": 0.5, "half_height": 0.5, "upper_slope": 0.03, "lower_slope": 0.03,
         "width_taper": 0.02, "depth_taper": 0.02, "rim_lateral": 2.0}
MATCHED = ("endplate_width_superior", "endplate_width_inferior", "endplate_depth_superior",
           "endplate_depth_inferior", "body_height_anterior", "body_height_posterior")
# How far (published SDs) a matched size may lie from the published mean where the meshes' own lies farther.
MATCH_LIMIT = 0.5


def body_frame(mesh: Mesh) -> np.ndarray:
    """(4, 4) from LPS to a frame at the middle of the body whose x-y plane is parallel to the end plates.

    From the mid-plane section: of its points those before the canal are the body's.
    """
    x0 = 0.5 * (mesh.vertices[:, 0].min() + mesh.vertices[:, 0].max())
    points, _ = surface_samples(mesh, 200000, seed=3)
    section = points[np.abs(points[:, 0] - x0) < 0.7][:, 1:]
    ys = np.sort(section[:, 0])
    gap = int(np.argmax(np.diff(ys)))
    body = section[section[:, 0] <= ys[gap]]
    centre, tilt = 0.5 * (body.min(0) + body.max(0)), 0.0
    for _ in range(10):
        turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
        q = (body - centre) @ turn.T
        middle, half = 0.5 * (q.min(0) + q.max(0)), 0.5 * np.ptp(q, axis=0)
        q = q - middle
        plates = [q[(np.abs(q[:, 0]) < 0.6 * half[0]) & (side * q[:, 1] > 0.5 * half[1])] for side in (1.0, -1.0)]
        tilt += float(np.arctan(np.mean([np.polyfit(p[:, 0], p[:, 1], 1)[0] for p in plates])))
        centre = centre + middle @ turn
    rotation = Rotation.from_euler("x", -tilt).as_matrix()
    return transforms.make_transform(rotation, -rotation @ np.array([x0, *centre]))


def field_samples(mesh: Mesh, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points about a mesh, their signed distances (mm, negative inside) and weights."""
    rng = np.random.default_rng(seed)
    on, _ = surface_samples(mesh, SURFACE, seed)
    low, high = mesh.vertices.min(0) - 3.0, mesh.vertices.max(0) + 3.0
    near, far = on + rng.normal(0.0, 2.5, on.shape), rng.uniform(low, high, (SURFACE // 2, 3))
    dense, normals = surface_samples(mesh, 120000, seed + 1)
    off = np.concatenate([near, far])
    distance, nearest = cKDTree(dense).query(off)
    signed = distance * np.sign(((off - dense[nearest]) * normals[nearest]).sum(1))
    weights = np.concatenate([np.ones(SURFACE), np.full(SURFACE, 0.7), np.full(SURFACE // 2, 0.5)])
    return np.concatenate([on, off]), np.concatenate([np.zeros(SURFACE), signed]), weights


def _steps() -> np.ndarray:
    """By how much each number may be expected to differ from the start of a fit."""
    body = np.array([2, 2, 1.5, .05, .05, .4, .1, .1, .1, 1, 1, 4, 4, .05, .05, 1.5, .1, .1, 1e-4, 1e-4, 1.5])
    canal = np.array([1.5, 1.5, 3, .2, .2])
    parts = np.tile([3, 3, 3, 3, 3, 3, 2, 1.5, 2, 1.5, .4], (len(PARTS), 1))
    for row, name in enumerate(PARTS):
        if name in MIDLINE_PARTS:
            parts[row, [0, 3, 10]] = 1e-4
    return np.concatenate([body, canal, parts.ravel(), [0.4]])


def fit(start: VertebraShape, mesh: Mesh) -> tuple[VertebraShape, np.ndarray, float]:
    """Shape near `start` whose field agrees with the distances to `mesh`; the frame of the shape in that of the mesh
    (4, 4); and the mean distance left at the surface (mm)."""
    points, distances, weights = field_samples(mesh)
    goal = SATURATION * np.tanh(distances / SATURATION)
    steps, shape, pose, left = _steps(), start, np.zeros(6), np.inf
    for stiffness in WEIGHTS:
        origin, origin_pose = shape.vector(), pose

        def unpack(t: np.ndarray, origin: np.ndarray = origin, origin_pose: np.ndarray = origin_pose
                   ) -> tuple[VertebraShape, np.ndarray]:
            return VertebraShape.from_vector(origin + steps * t[6:]), origin_pose + t[:6]

        def residual(t: np.ndarray, unpack: Any = unpack, stiffness: float = stiffness) -> np.ndarray:
            candidate, at = unpack(t)
            rotation = Rotation.from_rotvec(0.1 * at[:3]).as_matrix()
            field = candidate.solid().field(points @ rotation.T + 2.0 * at[3:])
            misfit = (SATURATION * np.tanh(field / SATURATION) - goal) * weights
            slopes = 30.0 * (candidate.body[7] + candidate.body[8])
            return np.concatenate([misfit, stiffness * np.sqrt(SURFACE / 260.0) * t, [slopes]])

        found = least_squares(residual, np.zeros(6 + len(origin)), max_nfev=EVALUATIONS, diff_step=1e-4)
        shape, pose = unpack(found.x)
        left = float(np.abs(residual(found.x)[:SURFACE]).mean())
    mesh_to_shape = transforms.make_transform(Rotation.from_rotvec(0.1 * pose[:3]).as_matrix(), 2.0 * pose[3:])
    return shape, transforms.invert(mesh_to_shape), left


def match_sizes(level: str, shape: VertebraShape, mesh: Mesh) -> VertebraShape:
    """`shape` with the body changed a little so that its end plates and heights measure as those of `mesh` do.

    A surface fit leaves the rims up to 2 mm off, where few points of the surface lie. A size of the mesh that is far
    from the published mean (the mean of patients is not that of the healthy) is drawn to `MATCH_LIMIT` SDs of it.
    """
    measured, goal = measure(mesh), []
    for name in MATCHED:
        known = published().get((name, level))
        reach = (-np.inf, np.inf) if known is None else (known.mean - MATCH_LIMIT * known.sd,
                                                         known.mean + MATCH_LIMIT * known.sd)
        goal.append(float(np.clip(measured[name], *reach)))
    places = [BODY_NAMES.index(name) for name in SIZES]
    steps = np.array(list(SIZES.values()))

    def changed(t: np.ndarray) -> VertebraShape:
        body = shape.body.copy()
        body[places] += steps * (t - 1.0)
        return replace(shape, body=body)

    def residual(t: np.ndarray) -> np.ndarray:
        found = measure(shape_mesh(changed(t), 1.2))
        misses = [found[name] - value for name, value in zip(MATCHED, goal, strict=True)]
        return np.concatenate([misses, 0.1 * (t - 1.0)])

    # Unknowns start at 1 because steps of differences are relative; large ones see past the grain of the mesh.
    best = least_squares(residual, np.ones(len(places)), diff_step=0.5, max_nfev=10)
    return changed(best.x)


def as_table(shape: VertebraShape, shape_to_patient: np.ndarray) -> dict[str, Any]:
    """One level's entry of mean_shapes.json."""
    centre = shape_to_patient[:3, 3]
    tilt = np.degrees(np.arctan2(shape_to_patient[2, 1], shape_to_patient[1, 1]))
    return {"body": dict(zip(BODY_NAMES, shape.body.round(3).tolist(), strict=True)),
            "canal": dict(zip(CANAL_NAMES, shape.canal.round(3).tolist(), strict=True)),
            "parts": {name: row.round(2).tolist() for name, row in zip(PARTS, shape.parts, strict=True)},
            "blend": round(shape.blend, 3), "centre": centre[1:].round(2).tolist(), "tilt_deg": round(float(tilt), 2)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; exit status 2 for bad input."""
    parser = argparse.ArgumentParser("fit_mean_shapes", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meshes", type=Path, required=True, metavar="DIR",
                        help="folder with L2.ply .. L5.ply, mm, RAS")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file to write")
    parser.add_argument("--start", type=Path, metavar="FILE",
                        help="JSON file written before: match the sizes of its bodies, fit no surface")
    options = parser.parse_args(arguments)
    shapes: dict[str, VertebraShape] = {}
    levels: dict[str, Any] = {}
    try:
        for level, origin in ORDER:
            mesh = read_mesh(options.meshes / f"{level}.ply").transformed(AXES["RAS"])
            if options.start is not None:
                mean = read_mean_shapes(options.start)[level]
                pose = Rotation.from_euler("x", mean.tilt).as_matrix()
                levels[level] = as_table(match_sizes(level, mean.shape, mesh),
                                         transforms.make_transform(pose, np.array([0.0, *mean.centre])))
                continue
            to_body = body_frame(mesh)
            start = first_guess() if origin is None else shapes[origin]
            shapes[level], shape_to_mesh, left = fit(start, mesh.transformed(to_body))
            levels[level] = as_table(match_sizes(level, shapes[level], mesh),
                                     transforms.invert(to_body) @ shape_to_mesh)
            print(f"{level}: {left:.2f} mm left at the surface", flush=True)
    except UsxError as error:
        print(f"fit_mean_shapes: {error}", file=sys.stderr)
        return 2
    text = json.dumps({"comment": COMMENT,
                       "levels": dict(sorted(levels.items()))}, indent=1)
    compact = re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m.group(1)) + "]", text)
    options.out.write_text(compact + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
