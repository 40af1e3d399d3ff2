"""The preset `realistic`: a swept probe without errors is exact, and each error does what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from usx_common.levels import LEVELS
from usx_completion.data.examination import examine, level_samples
from usx_completion.data.presets import REALISTIC, SampleSettings, preset_named
from usx_completion.data.sweep_path import (
    Frames,
    SweepSettings,
    TrackingErrors,
    believed,
    lead_probe,
    smooth_noise,
)
from usx_completion.data.visibility_realistic import EchoSettings, FaultSettings, RealisticVisibility, sweep_over
from usx_completion.surface_distance import surface_distances
from usx_phantom.raycast import TriangleTree

NO_ERRORS = TrackingErrors(0.0, 0.0, 50.0, 0.0, 0.0, 0.0, (0.0, 0.0))
NO_FAULTS = FaultSettings(lost_frames=0.0, streaks=(0.0, 0.0), stray=(0.0, 0.0))
SHARP = EchoSettings(incidence_deg=(55.0, 55.0), softness_deg=1e-6, fading_deg_per_cm=0.0, thickness_mm=(0.0, 0.0),
                     points_per_echo=1, noise_mm=(0.0, 0.0))
STRAIGHT = SweepSettings(frame_step_mm=2.0, depth_mm=(90.0, 90.0), skin_mm=(12.0, 12.0), wander_mm=0.0, turn_deg=0.0,
                         paramedian=0.0)
PERFECT = RealisticVisibility(STRAIGHT, SHARP, NO_ERRORS, NO_FAULTS)


def swept(spine, settings, seed=0):
    return sweep_over(spine.meshes, settings, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def perfect(data_spine):
    return swept(data_spine, PERFECT)


def test_without_errors_every_point_lies_on_its_bone(data_spine, perfect):
    assert len(perfect.points) > 3000 and set(perfect.owners) == {20, 21, 22, 23, 24}
    for index, level in enumerate(LEVELS):
        mine = perfect.points[perfect.owners == 20 + index]
        assert surface_distances(mine[::7], data_spine.meshes[level]).max() < 1e-6


def test_echoes_keep_the_limits_of_incidence_depth_and_fan(data_spine, perfect):
    """Rays are cast anew by hand from the frames: each point is a first hit within all limits, and none is missing."""
    frames = lead_probe(data_spine.meshes, STRAIGHT, np.random.default_rng(0))
    tree = TriangleTree.build([data_spine.meshes[level] for level in LEVELS])
    expected = []
    for axes, origin in zip(frames.rotations, frames.origins, strict=True):
        centre = origin - 60.0 * axes[:, 1]
        angles = np.radians(np.linspace(-30.0, 30.0, STRAIGHT.lines))
        ways = np.sin(angles)[:, None] * axes[:, 0] + np.cos(angles)[:, None] * axes[:, 1]
        hits = tree.cast(centre + 60.0 * ways, ways, 90.0)
        steep = -np.einsum("ni,ni->n", hits.normal, ways) >= np.cos(np.radians(55.0))
        told = np.isfinite(hits.distance) & steep
        expected.append(centre + (60.0 + hits.distance[told, None]) * ways[told])
    np.testing.assert_allclose(perfect.points, np.concatenate(expected), atol=1e-9)


def test_the_probe_stays_behind_the_skin_and_looks_forwards(data_spine):
    settings = replace(STRAIGHT, skin_mm=(10.0, 10.0), wander_mm=3.0, turn_deg=2.5)
    for seed in range(4):
        frames = lead_probe(data_spine.meshes, replace(settings, paramedian=float(seed % 2)),
                            np.random.default_rng(seed))
        tips = [mesh.vertices[:, 1].max() for mesh in data_spine.meshes.values()]
        assert frames.origins[:, 1].min() > min(tips)
        depth = frames.rotations[:, :, 1]
        assert np.all(depth[:, 1] < -0.75)
        np.testing.assert_allclose(np.linalg.det(frames.rotations), 1.0)
        gap = np.min([np.linalg.norm(mesh.vertices[None] - frames.origins[::25, None], axis=2).min()
                      for mesh in data_spine.meshes.values()])
        assert gap > 8.0
        for mesh in data_spine.meshes.values():
            nearest = np.abs(mesh.vertices[:, None, 2] - frames.origins[None, ::10, 2]).argmin(axis=1)
            assert np.all(mesh.vertices[:, 1] < frames.origins[::10][nearest, 1])


def test_two_paramedian_passes_look_inwards(data_spine):
    frames = lead_probe(data_spine.meshes, replace(STRAIGHT, paramedian=1.0), np.random.default_rng(0))
    side = frames.origins[:, 0] - np.median(frames.origins[:, 0])
    left = side > 0
    assert 0.45 < left.mean() < 0.55 and np.abs(side).min() > 10.0
    assert np.all(frames.rotations[left, 0, 1] < -0.1) and np.all(frames.rotations[~left, 0, 1] > 0.1)


def test_smooth_noise_has_unit_spread_and_its_length():
    random = np.random.default_rng(0)
    rows = np.stack([smooth_noise(random, 400, 40.0) for _ in range(300)])
    assert rows.std() == pytest.approx(1.0, abs=0.05) and abs(rows.mean()) < 0.05
    near, far = (np.mean(rows[:, 100] * rows[:, 100 + lag]) for lag in (5, 150))
    assert near > 0.9 and abs(far) < 0.2


def plain_frames(count=300):
    rotations = np.tile(np.diag([1.0, -1.0, -1.0]), (count, 1, 1))
    return Frames(rotations, np.column_stack([np.zeros(count), np.full(count, 60.0), np.arange(count) * 0.8]))


def test_a_calibration_error_is_one_motion_of_the_probe():
    frames = plain_frames()
    errors = replace(NO_ERRORS, calibration_mm=2.0, calibration_deg=2.0)
    wrong = believed(frames, errors, 0.8, np.random.default_rng(4))
    relative = np.swapaxes(frames.rotations, 1, 2) @ wrong.rotations
    shift = np.einsum("fji,fj->fi", frames.rotations, wrong.origins - frames.origins)
    assert np.ptp(relative, axis=0).max() < 1e-9 and np.ptp(shift, axis=0).max() < 1e-9
    assert 0.5 < np.linalg.norm(shift[0]) < 8.0
    assert 0.3 < np.degrees(Rotation.from_matrix(relative[0]).magnitude()) < 9.0


def test_drift_is_smooth_and_as_large_as_stated():
    sizes, steps = [], []
    for seed in range(60):
        frames = plain_frames()
        errors = replace(NO_ERRORS, drift_mm=0.5, drift_deg=0.4)
        wrong = believed(frames, errors, 0.8, np.random.default_rng(seed))
        shift = wrong.origins - frames.origins
        sizes.append(shift)
        steps.append(np.diff(shift, axis=0))
    assert np.std(sizes) == pytest.approx(0.5, abs=0.05)
    assert np.abs(steps).max() < 0.15


def test_breathing_moves_along_y_alone():
    frames = plain_frames()
    wrong = believed(frames, replace(NO_ERRORS, breathing_mm=(1.0, 1.0)), 0.8, np.random.default_rng(0))
    moved = wrong.origins - frames.origins
    assert np.abs(moved[:, [0, 2]]).max() < 1e-12 and 0.95 < np.abs(moved[:, 1]).max() <= 1.0


def test_thickness_and_noise_spread_points_as_stated(data_spine):
    thick = swept(data_spine, replace(PERFECT, echo=replace(SHARP, thickness_mm=(2.0, 2.0), points_per_echo=3)))
    noisy = swept(data_spine, replace(PERFECT, echo=replace(SHARP, noise_mm=(0.6, 0.6))))
    exact = swept(data_spine, PERFECT)
    moved = thick.points - np.repeat(exact.points, 3, axis=0)
    along = np.linalg.norm(moved, axis=1)
    assert along.max() <= 1.0 and along.mean() == pytest.approx(0.5, abs=0.02)
    assert (noisy.points - exact.points).std() == pytest.approx(0.6, abs=0.02)


def test_clutter_lies_on_no_bone_and_in_front_of_it(data_spine):
    settings = replace(PERFECT, faults=FaultSettings(0.0, 4.0, (15.0, 15.0), stray=(0.0, 0.0)))
    seen = swept(data_spine, settings)
    clutter = seen.points[seen.owners == 0]
    assert 0.03 < len(clutter) / len(seen.points) < 0.6
    inside = [np.abs(surface_distances(clutter, mesh)) for mesh in data_spine.meshes.values()]
    assert np.mean(np.min(inside, axis=0) > 1.0) > 0.8
    assert swept(data_spine, PERFECT).owners.min() >= 20


def test_streaks_may_all_have_one_size(data_spine):
    faults = FaultSettings(0.0, 4.0, (15.0, 15.0), streak_frames=(1, 1), streak_lines=(5, 5), stray=(0.0, 0.0))
    seen = swept(data_spine, replace(PERFECT, faults=faults))
    assert 0 < np.sum(seen.owners == 0) <= 5 * 15 * 3  # 15 streaks per 100 frames, fewer than 300 frames here


def test_lost_frames_are_missing_whole(data_spine):
    settings = replace(PERFECT, faults=replace(NO_FAULTS, lost_frames=0.05))
    kept, everything = swept(data_spine, settings), swept(data_spine, PERFECT)
    assert 0.5 < len(kept.points) / len(everything.points) < 0.97
    assert swept(data_spine, replace(PERFECT, faults=replace(NO_FAULTS, lost_frames=1.0))).points.shape == (0, 3)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another(data_spine):
    first, again, other = (swept(data_spine, REALISTIC.visibility, seed) for seed in (1, 1, 2))
    assert first.points.tobytes() == again.points.tobytes() and first.owners.tobytes() == again.owners.tobytes()
    assert len(other.points) != len(first.points)


def test_steep_and_hidden_bone_shows_less_than_in_the_paper(data_spine):
    from usx_completion.data.presets import PAPER
    from usx_completion.data.visibility_paper import see_from_behind

    normal_of = TriangleTree.build([data_spine.meshes[level] for level in LEVELS])
    steep = []
    for seen in (see_from_behind(data_spine.meshes, PAPER.visibility, np.random.default_rng(0)),
                 swept(data_spine, PERFECT)):
        hits = normal_of.cast(seen.points + [0.0, 0.01, 0.0], np.tile([0.0, -1.0, 0.0], (len(seen.points), 1)), 1.0)
        steep.append(np.mean(hits.normal[hits.mesh >= 0, 1] < np.cos(np.radians(70.0))))
    assert steep[1] < 0.5 * steep[0]


def test_an_imperfect_split_brings_neighbours_and_never_uses_the_true_box(data_spine, data_chain):
    settings = SampleSettings(REALISTIC, points=1024)
    observed = examine(data_spine, settings, 5)
    one, two = (level_samples(observed, data_spine, settings, data_chain, seed) for seed in (5, 6))
    assert len(one) >= 4
    foreign = [np.mean(sample.input.owners != 20 + LEVELS.index(sample.level)) for sample in one]
    assert 0.1 < np.mean(foreign) < 0.7
    # the jitter of the split depends on the seed
    assert not np.array_equal(one[0].input.partial, two[0].input.partial)


def test_points_shared_out_to_the_nearest_placed_mean_are_each_in_one_level_and_mostly_right(data_spine, data_chain):
    from usx_completion.data.crop import observed_rows

    preset = preset_named("realistic", "nearest_mean")
    observed = examine(data_spine, SampleSettings(preset, points=256), 5)
    rows = observed_rows(observed.seen, observed.bodies, data_chain, preset.crop, np.random.default_rng(0))
    masks = np.stack([rows[level] for level in LEVELS])
    assert masks.sum(axis=0).max() == 1
    owners = observed.seen.owners
    right = np.sum([masks[index] & (owners == 20 + index) for index in range(5)])
    assert right > 0.7 * masks.sum() and masks.sum() > 0.85 * np.sum(owners > 0)
    boxes = observed_rows(observed.seen, observed.bodies, data_chain, REALISTIC.crop, np.random.default_rng(0))
    in_boxes = np.stack([boxes[level] for level in LEVELS])
    assert np.sum([in_boxes[index] & (owners == 20 + index) for index in range(5)]) < 0.75 * in_boxes.sum()
