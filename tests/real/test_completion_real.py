"""Real columns, from whose shapes the shape model has learned nothing: simulated partial clouds of them completed."""

from __future__ import annotations

import numpy as np
import pytest

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, read_mesh
from usx_completion.completion import ShapeModelCompletion
from usx_completion.metrics import SampledSurface, mean_surface_distances
from usx_completion.shape_model import load_shape_model
from usx_completion.simulated_partial import simulate_partial

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.mark.real_data
@pytest.mark.parametrize("subject", ["verse004", "verse008", "verse009"])
def test_a_real_column_is_completed_within_3_mm_and_closer_than_by_the_placed_mean(usx_data, subject):
    meshes = {level: read_mesh(usx_data / "shapes" / subject / f"{level}.ply").transformed(RAS_TO_LPS)
              for level in LEVELS}
    centre = np.mean([mesh.vertices.mean(axis=0) for mesh in meshes.values()], axis=0)
    meshes = {level: Mesh(mesh.vertices - centre, mesh.faces) for level, mesh in meshes.items()}
    partial = simulate_partial(meshes)
    method = ShapeModelCompletion(load_shape_model()[0])
    fitted = method.complete(partial.points, partial.labels, partial.sources)
    placed = method.place_mean(partial.points, partial.labels, partial.sources)
    rows = []
    for level in LEVELS:
        truth = SampledSurface.of(meshes[level])
        mine = mean_surface_distances(truth, SampledSurface.of(fitted.levels[level].mesh))
        theirs = mean_surface_distances(truth, SampledSurface.of(placed.levels[level].mesh))
        rows.append((mine["whole"], theirs["whole"]))
        print(f"{subject} {level}: fitted {mine['whole']:.2f} (arch {mine['arch']:.2f}, body {mine['body']:.2f}), "
              f"placed mean {theirs['whole']:.2f} mm")
    fitted_mm, placed_mm = np.transpose(rows)
    assert (fitted_mm < 3.0).all()
    # L5 of verse004 is the one of the 15 vertebrae where the mean shape placed is as near (docs/completion.md)
    assert (fitted_mm < placed_mm).sum() >= (4 if subject == "verse004" else 5)
    assert fitted_mm.mean() < placed_mm.mean()
