"""Splitting levels, measuring bodies and placing the X-ray, against the vertebrae that the rays hit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from spine_scene import SpineScene, phantom_scene, real_scene

from usx_common import transforms
from usx_registration.bodies import BadBodies, measure_bodies, measure_outlines
from usx_registration.joint_cloud import join, to_mid_plane
from usx_registration.level_split import Split, similarity, split_levels
from usx_registration.posterior_template import load_template, place_template
from usx_registration.smoothing import smooth_along_surface
from usx_registration.xray_placement import BadPlacement, film_axes, mid_plane, place_xray


def noisy_bone(scene: SpineScene, seed: int = 0, count: int = 8000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    chosen = random.choice(len(scene.bone), count, replace=False)
    return scene.bone[chosen] + random.normal(0.0, 0.5, (count, 3)), scene.labels[chosen]


def split_scene(scene: SpineScene, shift: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> tuple[Split, np.ndarray]:
    points, truth = noisy_bone(scene)
    return split_levels(points, measure_bodies(scene.bodies + shift, scene.body_labels)), truth


@pytest.mark.parametrize("seed", [None, 3])
def test_phantom_points_get_their_own_level(seed: int | None) -> None:
    split, truth = split_scene(phantom_scene(seed))
    assert np.mean(split.labels == truth) > 0.985


@pytest.mark.real_data
@pytest.mark.parametrize("subject", ["verse004", "verse008", "verse009"])
def test_real_points_get_their_own_level(usx_data: Path, subject: str) -> None:
    split, truth = split_scene(real_scene(usx_data / "shapes" / subject), (8.0, 1.0, -1.0))
    known = split.labels > 0
    assert np.mean(split.labels[known] == truth[known]) >= 0.97
    assert known.mean() > 0.985


@pytest.mark.real_data
def test_planes_between_the_bodies_would_not_do(usx_data: Path) -> None:
    """The reason for the effort: what a plane through the middle of each disc reaches on the same points."""
    scene = real_scene(usx_data / "shapes" / "verse009")
    points, truth = noisy_bone(scene)
    heights = [scene.bodies[scene.body_labels == label, 2].mean() for label in range(20, 25)]
    nearest = 20 + np.argmin(np.abs(points[:, 2:] - heights), axis=1)
    assert np.mean(nearest == truth) < 0.9


def test_a_fallen_lateral_place_of_the_xray_does_not_matter() -> None:
    scene = phantom_scene()
    split, truth = split_scene(scene, (25.0, 0.0, 0.0))
    assert np.mean(split.labels == truth) > 0.98
    assert split.column_shift[0, 3] == pytest.approx(-25.0, abs=3.0)


def test_without_xray_no_level_is_known() -> None:
    split = split_levels(np.random.default_rng(0).normal(size=(200, 3)), {})
    assert split.labels.dtype == np.uint8 and not split.labels.any()


def test_points_far_from_any_vertebra_belong_to_none() -> None:
    scene = phantom_scene()
    points, _ = noisy_bone(scene)
    stray = np.random.default_rng(1).uniform([-60, 130, -40], [60, 150, 40], (300, 3)) + [0, 0, scene.bone[:, 2].mean()]
    split = split_levels(np.concatenate([points, stray]), measure_bodies(scene.bodies, scene.body_labels))
    assert not split.labels[len(points):].any()


def test_levels_that_the_xray_does_not_show_get_no_points() -> None:
    scene = phantom_scene()
    points, truth = noisy_bone(scene)
    shown = np.isin(scene.body_labels, [21, 22, 23])
    split = split_levels(points, measure_bodies(scene.bodies[shown], scene.body_labels[shown]))
    assert set(np.unique(split.labels)) <= {0, 21, 22, 23}
    assert np.mean(split.labels[truth == 22] == 22) > 0.95
    assert np.mean(split.labels[truth == 24] == 0) > 0.85


def test_smoothing_keeps_a_crease_and_removes_specks() -> None:
    x, y = np.meshgrid(np.arange(-20.0, 20.0), np.arange(-20.0, 20.0))
    roof = np.column_stack([x.ravel(), y.ravel(), -np.abs(x.ravel())])
    normals = np.column_stack([np.sign(roof[:, 0] + 0.5), np.zeros(len(roof)), np.ones(len(roof))]) / np.sqrt(2)
    truth = roof[:, 0] >= 0
    belief = np.where(np.random.default_rng(3).random(len(roof)) < 0.15, ~truth, truth)
    smooth = smooth_along_surface(roof, normals, np.column_stack([~belief, belief]).astype(float))
    assert np.mean(smooth.argmax(axis=1) == truth) > 0.99


def test_similarity_recovers_a_known_motion() -> None:
    random = np.random.default_rng(0)
    source = random.normal(size=(50, 3)) * 20
    turn = Rotation.from_rotvec([0.2, -0.1, 0.4]).as_matrix()
    linear, offset = similarity(source, 1.03 * source @ turn.T + [1, 2, 3], np.ones(50))
    assert np.allclose(linear, 1.03 * turn) and np.allclose(offset, [1, 2, 3])


# bodies


def rectangle(centre: tuple[float, float], tilt_deg: float, label: int) -> tuple[np.ndarray, np.ndarray]:
    grid = np.stack(np.meshgrid(np.linspace(-17, 17, 35), np.linspace(-13, 13, 27)), axis=-1).reshape(-1, 2)
    tilt = np.radians(tilt_deg)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    return grid @ turn.T + centre, np.full(len(grid), label)


def test_outlines_of_tilted_rectangles() -> None:
    parts = [rectangle((0.0, 36.0), 10.0, 20), rectangle((3.0, 0.0), 0.0, 21), rectangle((0.0, -36.0), -12.0, 22)]
    points, labels = np.concatenate([p for p, _ in parts]), np.concatenate([n for _, n in parts])
    outlines = measure_outlines(points, labels, np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    for (label, outline), tilt, centre in zip(outlines.items(), (10.0, 0.0, -12.0), ((0, 36), (3, 0), (0, -36)),
                                              strict=True):
        assert label in (20, 21, 22)
        assert np.degrees(np.arctan2(outline.back[1], outline.back[0])) == pytest.approx(tilt, abs=1.5)
        assert outline.centre == pytest.approx(centre, abs=0.5)
        assert (outline.height, outline.depth) == pytest.approx((26.0, 34.0), abs=1.5)


@pytest.mark.parametrize(("points", "labels", "words"), [
    (np.zeros((0, 3)), np.zeros(0), "no vertebral body"),
    (np.random.default_rng(0).normal(size=(40, 3)), np.full(40, 7), "no vertebral body"),
    (np.random.default_rng(0).normal(size=(11, 3)), np.full(11, 20), "no vertebral body"),
    (np.random.default_rng(0).normal(size=(40, 3)) + np.repeat([[0, 0, -20], [0, 0, 20]], 20, axis=0),
     np.repeat([20, 21], 20), "follow one another from cranial to caudal: L1 at -2"),
])
def test_bodies_that_cannot_be_measured(points: np.ndarray, labels: np.ndarray, words: str) -> None:
    with pytest.raises(BadBodies, match=words):
        measure_bodies(points, labels)


def test_a_lone_body_stands_upright() -> None:
    plane, labels = rectangle((5.0, 1.0), 8.0, 22)
    bodies = measure_bodies(np.column_stack([np.full(len(plane), 3.0), plane]), labels)
    assert np.isnan(bodies[22].spacing)
    assert bodies[22].body_to_spine[:3, 3] == pytest.approx([3.0, 5.0, 1.0], abs=0.5)
    assert transforms.is_rigid(bodies[22].body_to_spine)


def test_template_lies_behind_its_body_and_on_either_side() -> None:
    for template in load_template().values():
        assert np.percentile(template.points[:, 1], 5) > -20 and template.points[:, 1].max() > 55
        assert abs(template.points[:, 0].mean()) < 1.0
        assert 24 < template.height < 34 and 30 < template.depth < 40 and 30 < template.spacing < 40


def test_a_template_is_scaled_by_depth_and_spacing_within_bounds() -> None:
    scene = phantom_scene()
    body = measure_bodies(scene.bodies, scene.body_labels)[22]
    usual = np.ptp(place_template({22: body})[22], axis=0)
    huge = np.ptp(place_template({22: replace(body, depth=500.0)})[22], axis=0)
    assert huge == pytest.approx(1.3 / np.clip(np.mean([body.depth / load_template()[22].depth,
                                                        body.spacing / load_template()[22].spacing]), 0.75, 1.3)
                                 * usual, rel=0.01)


# placing the X-ray without a device


def xray_pose(to_left: bool, turn_deg: float) -> np.ndarray:
    """`xray_to_spine` of a lateral beam; rows run caudally, turned within the image."""
    beam = np.array([1.0 if to_left else -1.0, 0.0, 0.0])
    rows = Rotation.from_rotvec(np.radians(turn_deg) * np.array([1.0, 0.0, 0.0])).as_matrix() @ [0.0, 0.0, -1.0]
    return transforms.make_transform(np.stack([np.cross(rows, beam), rows, beam], axis=1),
                                     np.array([0.0, 15.0, -20.0]) - 700.0 * beam)


# How far in front of the arch a body stands differs from person to person, and ultrasound alone cannot tell: person 3,
# whose bodies lie deep, shows how far off that can be.
@pytest.mark.parametrize(("person", "to_left", "turn_deg", "limit"), [
    (1, True, 0.0, 4.0), (3, False, 7.0, 9.0), (7, True, -15.0, 4.0),
])
def test_xray_is_placed_from_the_ultrasound_alone(person: int, to_left: bool, turn_deg: float, limit: float) -> None:
    scene = phantom_scene(person)
    points, _ = noisy_bone(scene)
    middle = points.mean(axis=0)
    points, bodies = points - middle, scene.bodies - middle
    film = transforms.apply(transforms.invert(xray_pose(to_left, turn_deg)), bodies)
    placement = place_xray(points, film, scene.body_labels)
    error = transforms.apply(placement.xray_to_spine, film) - bodies
    assert placement.beam_to_left == to_left
    assert np.abs(error[:, 0]).max() < 6.0
    assert np.linalg.norm(error[:, 1:], axis=1).max() < limit
    assert placement.fit.overlap > 0.7 and placement.fit.runner_up > 1.1


@pytest.mark.real_data
@pytest.mark.parametrize("subject", ["verse004", "verse008", "verse009"])
def test_xray_of_a_real_spine_is_placed(usx_data: Path, subject: str) -> None:
    scene = real_scene(usx_data / "shapes" / subject)
    points, _ = noisy_bone(scene)
    middle = points.mean(axis=0)
    film = transforms.apply(transforms.invert(xray_pose(False, 5.0)), scene.bodies - middle)
    placement = place_xray(points - middle, film, scene.body_labels)
    error = transforms.apply(placement.xray_to_spine, film) - (scene.bodies - middle)
    assert not placement.beam_to_left
    assert np.linalg.norm(error[:, 1:], axis=1).max() < 5.0


def test_the_mid_plane_is_halfway_between_the_lateral_extremes() -> None:
    random = np.random.default_rng(0)
    turn = Rotation.from_rotvec([0.0, 0.0, 0.1]).as_matrix()
    slab = random.uniform([-40, -15, -90], [40, 15, 90], (20000, 3)) @ turn.T + [12.0, 0.0, 0.0]
    plane = mid_plane(slab)
    assert plane.normal == pytest.approx(turn[:, 0], abs=0.02)
    assert plane.point[0] == pytest.approx(12.0, abs=1.0)


def test_a_short_sweep_takes_left_from_the_patient() -> None:
    slab = np.random.default_rng(0).uniform([-40, -15, -20], [40, 15, 20], (5000, 3))
    assert mid_plane(slab).normal == pytest.approx([1.0, 0.0, 0.0])


def test_film_axes_are_right_handed_for_either_beam() -> None:
    centres = np.array([[0.0, -40.0, 700.0], [0.0, 40.0, 700.0]])
    points = np.repeat(centres, 20, axis=0)
    for to_left in (True, False):
        axes = film_axes(points, np.repeat([20, 21], 20), to_left)
        assert np.linalg.det(axes[:3, :3]) == pytest.approx(1.0)
        assert axes[:3, 2] == pytest.approx([0.0, -1.0, 0.0])


def test_an_unknown_beam_is_refused() -> None:
    with pytest.raises(BadPlacement, match="sideways"):
        place_xray(np.zeros((10, 3)), np.zeros((10, 3)), np.zeros(10), "sideways")


# the joint cloud


def test_joint_cloud_keeps_the_order_and_marks_the_sources() -> None:
    bone = np.arange(12.0).reshape(4, 3)
    film = np.array([[0.0, 0.0, 700.0], [10.0, 0.0, 700.0], [5.0, 5.0, 700.0]])
    placed = (xray_pose(True, 0.0), {20: 0.0, 21: 0.0})
    cloud = join(bone, np.array([0, 20, 20, 21]), film, np.array([20, 21, 99]), placed)
    assert np.array_equal(cloud.points[:4], bone)
    assert cloud.labels.tolist() == [0, 20, 20, 21, 20, 21]
    assert cloud.sources.tolist() == [0, 0, 0, 0, 1, 1]


def test_xray_points_move_along_their_rays() -> None:
    pose = xray_pose(True, 0.0)
    film = np.array([[0.0, 0.0, 700.0], [70.0, -35.0, 700.0]])
    moved = to_mid_plane(film, pose, 7.0)
    assert np.allclose(transforms.apply(transforms.invert(pose), moved), film * 707.0 / 700.0)
    assert np.allclose(to_mid_plane(film, pose, 300.0), transforms.apply(pose, film))
