"""The preset `paper`: what its cameras see, its shadow rule, its crop, and the leak of its box."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_completion.data.examination import examine, level_samples
from usx_completion.data.presets import PAPER, SampleSettings
from usx_completion.data.visibility_figures import visibility_figures
from usx_completion.data.visibility_paper import PaperVisibility, camera_places, see_from_behind
from usx_phantom.raycast import TriangleTree

SETTINGS = PaperVisibility()


def box(low, high):
    made = trimesh.creation.box(bounds=[low, high])
    return np.asarray(made.vertices), np.asarray(made.faces)


def wall_on_a_floor(centre_z):
    """A thin wall along z that stands on a flat floor at y = 0 and reaches y = 20, as a spinous process on laminae."""
    parts = [box([-40, -5, centre_z - 16], [40, 0, centre_z + 16]), box([-2, 0, centre_z - 16], [2, 20, centre_z + 16])]
    vertices, faces = (np.concatenate([part[k] + (8 * i if k else 0) for i, part in enumerate(parts)]) for k in (0, 1))
    return Mesh(vertices, faces)


@pytest.fixture(scope="module")
def spine(data_spine):
    return data_spine


@pytest.fixture(scope="module")
def seen(spine):
    return see_from_behind(spine.meshes, SETTINGS, np.random.default_rng(0))


def test_the_numbers_are_the_published_ones():
    assert (SETTINGS.camera_mm, SETTINGS.columns, SETTINGS.rows, SETTINGS.focal_px) == (100.0, 160, 120, 100.0)
    assert (SETTINGS.merge_mm, SETTINGS.keep_mm, SETTINGS.noise_y_mm) == ((5.0, -1.0), 1.0, 0.0)
    assert (PAPER.crop.rule, PAPER.crop.margin_mm) == ("truth", (10.0, 0.0, 0.0))
    assert (PAPER.normalisation.extent_margin_mm, PAPER.normalisation.quantile) == (30.0, 0.0)
    assert SampleSettings().points == 4096


def test_cameras_stand_behind_their_level_unless_mirrored(spine):
    places = camera_places(spine.meshes, SETTINGS)
    means = np.stack([spine.meshes[level].vertices.mean(axis=0) for level in LEVELS])
    np.testing.assert_allclose(places[:, [0, 2]], means[:, [0, 2]])
    assert np.all(places[:, 1] == 100.0) and np.all(np.diff(places[:, 2]) < 0)
    mirrored = camera_places(spine.meshes, replace(SETTINGS, mirrored_cameras=True))
    np.testing.assert_allclose(mirrored[:, 2], -places[:, 2])


def test_only_surface_with_a_free_line_to_a_camera_is_seen(spine, seen):
    """An independent ray caster finds each point as the first hit from at least one camera."""
    points = np.unique(seen.points, axis=0)[::5]
    tree = TriangleTree.build([spine.meshes[level] for level in LEVELS])
    least = np.full(len(points), np.inf)
    for camera in camera_places(spine.meshes, SETTINGS):
        way = points - camera
        length = np.linalg.norm(way, axis=1)
        hits = tree.cast(np.tile(camera, (len(points), 1)), way / length[:, None])
        least = np.minimum(least, np.abs(hits.distance - length))
    assert len(points) > 2000 and least.max() < 1e-6


def test_what_faces_forwards_is_not_seen(spine, seen):
    rows = np.random.default_rng(1).choice(len(seen.points), 2000, replace=False)
    tree = TriangleTree.build([spine.meshes[level] for level in LEVELS])
    start = seen.points[rows] + [0.0, 1e-3, 0.0]
    inside = tree.cast(start, np.tile([0.0, 1.0, 0.0], (len(rows), 1)))
    # a ray backwards leaves the bone through no surface right away: the point is on the back of it
    assert np.mean(inside.distance < 1.0) < 0.02


def test_owners_are_the_bones_the_points_lie_on(spine, seen):
    from usx_completion.surface_distance import surface_distances

    for index, level in enumerate(LEVELS):
        mine = seen.points[seen.owners == 20 + index]
        assert len(mine) > 1000 and surface_distances(mine[::20], spine.meshes[level]).max() < 1e-6


def test_shadow_takes_the_strip_beside_a_wall_that_the_moved_copy_hides():
    """The copy's wall stands at x = 3..7 and is 19 high: a camera 100 mm above hides the floor from 3 to 7 / 0.81 mm.

    Floor within 1 mm of what still shows stays, so 4..7.6 goes and what lies beyond 8.7 stays; so does the wall's top.
    """
    meshes = {level: wall_on_a_floor(32.0 * (2 - index)) for index, level in enumerate(LEVELS)}
    kept = see_from_behind(meshes, SETTINGS, np.random.default_rng(0)).points
    # a copy that is not moved hides nothing, and the halves share the points near x = 0
    free = see_from_behind(meshes, replace(SETTINGS, merge_mm=(0.0, 0.0)), np.random.default_rng(0)).points

    def floor(points, low, high):
        x = np.abs(points[:, 0])
        return int(np.sum((points[:, 1] < 0.5) & (x > low) & (x < high)))

    assert floor(free, 4.1, 7.5) > 1000 and floor(kept, 4.1, 7.5) == 0
    assert floor(kept, 8.7, 30.0) == floor(free, 8.7, 30.0) > 5000
    assert np.sum((kept[:, 1] > 19.5) & (np.abs(kept[:, 0]) < 1.5)) > 200


def test_noise_moves_points_along_y_alone(spine, seen):
    noisy = see_from_behind(spine.meshes, replace(SETTINGS, noise_y_mm=1.0), np.random.default_rng(0))
    moved = noisy.points - seen.points
    assert np.all(moved[:, [0, 2]] == 0.0) and moved[:, 1].std() == pytest.approx(1.0, abs=0.03)


def test_inputs_hold_neighbours_inside_the_box_and_the_share_that_the_study_found(spine, data_chain):
    """Feasibility study of the same recipe: 31 % of the arch, 4 % of the body seen, 32 % of the points foreign."""
    settings = SampleSettings(points=2048)
    observed = examine(spine, settings, 1)
    samples = level_samples(observed, spine, settings, data_chain, 1)
    assert [sample.level for sample in samples] == list(LEVELS)
    for sample in samples:
        mesh = spine.meshes[sample.level].vertices
        points = sample.input.normalisation.invert(sample.input.partial)
        low, high = mesh.min(axis=0) - [10, 0, 0], mesh.max(axis=0) + [10, 0, 0]
        assert np.all(points >= low - 1e-9) and np.all(points <= high + 1e-9)
    figures = visibility_figures(samples)
    assert 0.24 < figures.arch_seen < 0.45 and figures.body_seen < 0.12
    assert 0.15 < figures.foreign < 0.45 and figures.clutter == 0.0
    assert 0.15 < figures.far < 0.42


def test_the_unit_is_the_left_right_extent_plus_30_mm(spine, data_chain):
    settings = SampleSettings(points=512)
    observed = examine(spine, settings, 1)
    for sample in level_samples(observed, spine, settings, data_chain, 1):
        mesh = spine.meshes[sample.level].vertices
        low, high = mesh.min(axis=0) - [10, 0, 0], mesh.max(axis=0) + [10, 0, 0]
        seen = observed.seen.points
        mine = seen[np.all((seen >= low) & (seen <= high), axis=1)]
        assert sample.input.normalisation.unit_mm == pytest.approx(np.ptp(mine[:, 0]) + 30.0, rel=1e-12)


def test_the_authors_drop_rules_drop(spine, data_chain):
    from usx_completion.data.presets import DropRules

    few = SampleSettings(points=4096)
    observed = examine(spine, few, 1)
    everything = level_samples(observed, spine, few, data_chain, 1)
    sparse = level_samples(observed, spine, replace(few, points=6000, drops=DropRules(sparse=True)), data_chain, 1)
    kept = {sample.level for sample in sparse}
    for level in LEVELS:
        mesh = spine.meshes[level].vertices
        low, high = mesh.min(axis=0) - [10, 0, 0], mesh.max(axis=0) + [10, 0, 0]
        count = np.all((observed.seen.points >= low) & (observed.seen.points <= high), axis=1).sum()
        assert (level in kept) == (count >= 6000)
    assert 0 < len(kept) < len(everything) == 5
    wide = {level: Mesh(mesh.vertices * [1.0, 1.0, 4.0], mesh.faces) for level, mesh in spine.meshes.items()}
    oversized = replace(few, points=512, drops=DropRules(oversized=True))
    assert level_samples(observed, replace(spine, meshes=wide), oversized, data_chain, 1) == []
    assert len(level_samples(observed, spine, oversized, data_chain, 1)) == 5
