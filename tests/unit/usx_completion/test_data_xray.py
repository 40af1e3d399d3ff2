"""Clouds of bodies in the X-ray: silhouettes of spheres in closed form, errors within their stated bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from scipy.spatial import ConvexHull

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_common.transforms import make_transform
from usx_completion.data.body_mask import SegmentationErrors, filling, mask_of, missegmented, outline
from usx_completion.data.observed import SeenPoints
from usx_completion.data.spine_sample import SpineSample
from usx_completion.data.xray_cloud import (
    CloudSizes,
    PaperXray,
    RealisticXray,
    cone_beam_clouds,
    orthographic_clouds,
)

RADIUS = 16.0
SIZES = CloudSizes(2000, 96)
NO_SEGMENTATION_ERRORS = SegmentationErrors(boundary_mm=0.0, corner=0.0)
FLAWLESS = RealisticXray(source_mm=(800.0, 800.0), aim_mm=0.0, tilt_deg=0.0, left_right_mm=(0.0, 10.0), shift_mm=0.0,
                         turn_deg=0.0, lean_deg=0.0, magnification=0.0, segmentation=NO_SEGMENTATION_ERRORS)
SEEN = SeenPoints(np.array([[-40.0, 20.0, 0.0], [46.0, 20.0, 0.0]] * 50), np.full(100, 22, np.uint8))


def spheres():
    """Five spheres for bodies, 40 mm apart, each with a lump behind it that is not of the body."""
    ball, lump = trimesh.creation.icosphere(4, RADIUS), trimesh.creation.icosphere(2, 8.0)
    vertices = np.vstack([ball.vertices, lump.vertices + [0.0, 35.0, 0.0]])
    faces = np.vstack([ball.faces, lump.faces + len(ball.vertices)])
    centres = {level: np.array([3.0, 0.0, 40.0 * (2 - index)]) for index, level in enumerate(LEVELS)}
    meshes = {level: Mesh(vertices + centre, faces) for level, centre in centres.items()}
    body = np.arange(len(vertices)) < len(ball.vertices)
    poses = {level: make_transform(np.eye(3), centre) for level, centre in centres.items()}
    return SpineSample(meshes, poses, "spheres", dict.fromkeys(LEVELS, body)), centres


def mask_of_disc(pixel=0.5):
    ball = trimesh.creation.icosphere(4, RADIUS)
    return mask_of(np.asarray(ball.vertices)[:, 1:] + [100.0, -7.0], np.asarray(ball.faces, np.int32), pixel)


def test_the_outline_of_a_disc_is_its_circle_with_radial_normals():
    points, normals = outline(mask_of_disc(), 96)
    offsets = points - [100.0, -7.0]
    radius = np.linalg.norm(offsets, axis=1)
    assert np.abs(radius - RADIUS).max() < 0.2 and abs(radius.mean() - RADIUS) < 0.05
    assert (np.sum(offsets * normals, axis=1) / radius).min() > np.cos(np.radians(6.0))
    steps = np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1)
    assert np.ptp(steps) < 0.15 * steps.mean()


def test_the_filling_of_a_disc_is_uniform():
    points = filling(mask_of_disc(), 20_000, np.random.default_rng(0)) - [100.0, -7.0]
    radius = np.linalg.norm(points, axis=1)
    assert radius.max() < RADIUS + 0.6
    assert np.mean(radius < RADIUS / 2) == pytest.approx(0.25, abs=0.01)


def test_a_body_without_faces_is_refused():
    with pytest.raises(UsxError, match="no face"):
        mask_of(np.zeros((4, 2)), np.zeros((0, 3), np.int32), 0.5)


def test_segmentation_errors_have_their_size_and_hang_together():
    mask = mask_of_disc()
    moved = []
    for seed in range(20):
        wrong = missegmented(mask, SegmentationErrors(boundary_mm=0.8, corner=0.0), np.random.default_rng(seed))
        points, _ = outline(wrong, 200)
        moved.append(np.linalg.norm(points - [100.0, -7.0], axis=1) - RADIUS)
    assert np.std(moved) == pytest.approx(0.8, abs=0.15) and abs(np.mean(moved)) < 0.2
    neighbours = np.mean([np.corrcoef(row[:-1], row[1:])[0, 1] for row in moved])
    assert neighbours > 0.9


def test_a_missing_corner_is_cut_off_straight():
    mask = mask_of_disc()
    errors = SegmentationErrors(boundary_mm=0.0, corner=1.0, corner_mm=(6.0, 6.0))
    cut = missegmented(mask, errors, np.random.default_rng(0))
    lost = ((mask.distance > 0) & (cut.distance <= 0)).sum() * mask.pixel**2
    height = 6.0  # of the segment of a circle
    segment = RADIUS**2 * np.arccos(1 - height / RADIUS) - (RADIUS - height) * np.sqrt(2 * RADIUS * height - height**2)
    assert lost == pytest.approx(segment, rel=0.1)


def test_the_papers_cloud_is_the_body_alone_on_the_plane_amid_the_ultrasound():
    sample, centres = spheres()
    clouds = orthographic_clouds(sample, SEEN, PaperXray(), SIZES, np.random.default_rng(0))
    for level, cloud in clouds.items():
        assert np.all(cloud.filled[:, 0] == 3.0) and np.all(cloud.outline[:, 0] == 3.0)
        radius = np.linalg.norm(cloud.outline[:, 1:] - centres[level][1:], axis=1)
        assert np.abs(radius - RADIUS).max() < 0.2
        assert cloud.filled[:, 1].max() < RADIUS + 0.6  # the lump behind is no body
    true = orthographic_clouds(sample, SEEN, PaperXray(plane="truth"), SIZES, np.random.default_rng(0))
    assert np.allclose(true["L1"].filled[:, 0], centres["L1"][0])


def test_an_ultrasound_that_shows_nothing_places_no_xray():
    sample, _ = spheres()
    nothing = SeenPoints(np.zeros((0, 3)), np.zeros(0, np.uint8))
    for clouds, settings in ((orthographic_clouds, PaperXray()), (cone_beam_clouds, FLAWLESS)):
        with pytest.raises(UsxError, match="no point"):
            clouds(sample, nothing, settings, SIZES, np.random.default_rng(0))


def test_a_cone_beam_magnifies_a_sphere_as_tangents_do():
    sample, centres = spheres()
    clouds = cone_beam_clouds(sample, SEEN, FLAWLESS, SIZES, np.random.default_rng(0))
    middle = clouds["L3"].outline[:, 1:] - centres["L3"][1:]
    # the cone of tangents from 800 mm cuts the plane through the centre at r / sqrt(1 - (r / 800)^2)
    assert np.linalg.norm(middle, axis=1).mean() == pytest.approx(RADIUS / np.sqrt(1 - (RADIUS / 800.0) ** 2), abs=0.05)
    upper = clouds["L1"].outline[:, 2]
    tangents = [800.0 * np.tan(np.arctan(80.0 / 800.0) + side * np.arcsin(RADIUS / np.hypot(800.0, 80.0)))
                for side in (-1.0, 1.0)]
    np.testing.assert_allclose([upper.min(), upper.max()], tangents, atol=0.25)


def test_errors_of_the_place_stay_within_their_bounds():
    sample, _ = spheres()
    settings = replace(FLAWLESS, left_right_mm=(8.0, 10.0), pixel_mm=2.0)
    places = [cone_beam_clouds(sample, SEEN, settings, CloudSizes(64, 32), np.random.default_rng(seed))["L3"].filled
              [:, 0].mean() for seed in range(40)]
    errors = np.asarray(places) - 3.0
    assert np.abs(errors).max() <= 10.0 + 1e-9 and errors.std() > 4.0


def test_the_tilt_stays_below_8_degrees_and_shows_in_the_plane_when_known():
    sample, _ = spheres()
    settings = replace(FLAWLESS, tilt_deg=8.0, tilt_known=1.0, pixel_mm=2.0)
    angles = []
    for seed in range(30):
        clouds = cone_beam_clouds(sample, SEEN, settings, CloudSizes(200, 32), np.random.default_rng(seed))
        points = np.concatenate([clouds[level].filled for level in LEVELS])
        centred = points - points.mean(axis=0)
        normal = np.linalg.svd(centred, full_matrices=False)[2][2]
        angles.append(np.degrees(np.arccos(min(abs(normal[0]), 1.0))))
    assert 5.0 < max(angles) <= 8.0 + 1e-6
    unknown = cone_beam_clouds(sample, SEEN, replace(settings, tilt_known=0.0), SIZES, np.random.default_rng(1))
    assert np.ptp(unknown["L2"].filled[:, 0]) < 1e-9


def test_the_realistic_bodies_of_a_spine_are_near_the_true_ones(data_spine):
    clouds = cone_beam_clouds(data_spine, SEEN, RealisticXray(), SIZES, np.random.default_rng(3))
    for level in LEVELS:
        body = data_spine.meshes[level].vertices[data_spine.body[level]][:, 1:]
        shift = clouds[level].outline[:, 1:].mean(axis=0) - body.mean(axis=0)
        assert np.linalg.norm(shift) < 25.0
        area = ConvexHull(clouds[level].outline[:, 1:]).volume / ConvexHull(body).volume
        assert 0.6 < area < 1.4


def test_the_same_seed_gives_the_same_bytes_every_time(data_spine):
    def everything():
        clouds = cone_beam_clouds(data_spine, SEEN, RealisticXray(), SIZES, np.random.default_rng(3))
        return b"".join(part.tobytes() for level in LEVELS for part in vars(clouds[level]).values())

    assert len({everything() for _ in range(6)}) == 1
