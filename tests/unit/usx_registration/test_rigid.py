"""Rigid registration of ray-cast ultrasound points to a whole CBCT surface, against known displacements."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from spine_scene import SpineScene, as_ultrasound, phantom_scene, real_scene

from usx_common import transforms
from usx_common.clouds import voxel_downsample
from usx_registration.rigid import RigidResult, RigidSettings, register, update
from usx_registration.scale import axis_scales
from usx_registration.surfaces import BadSurface, Surface, main_bone_mask, posterior_surface, visible_mask

CRANIAL = np.array([0.0, 0.0, 1.0])


def surface_of(scene: SpineScene) -> Surface:
    return posterior_surface(scene.cbct, [0, 1, 0], CRANIAL)


def displaced(middle: np.ndarray, millimetres: float, degrees: float, seed: int, along: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    axis, direction = random.normal(size=3), random.normal(size=3)
    turn = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    shift = millimetres * direction / np.linalg.norm(direction) + [0.0, 0.0, along]
    return transforms.make_transform(turn, middle - turn @ middle + shift)


def errors_at(scene: SpineScene, result: RigidResult) -> np.ndarray:
    """Target registration errors at the vertebrae, mm: the truth is the identity."""
    return np.linalg.norm(transforms.apply(result.source_to_target, scene.centres) - scene.centres, axis=1)


@pytest.fixture(scope="module")
def phantom() -> SpineScene:
    return phantom_scene()


@pytest.fixture(scope="module")
def noisy(phantom: SpineScene) -> np.ndarray:
    return as_ultrasound(phantom.bone, 3000, noise=0.7, outliers=0.2, seed=1)


def run(points: np.ndarray, surface: Surface, scene: SpineScene, starts: list[np.ndarray]) -> list[float]:
    return [float(errors_at(scene, register(points, surface, start, CRANIAL)).max()) for start in starts]


def test_twenty_starts_5_mm_and_3_degrees_off_end_within_half_a_millimetre(phantom: SpineScene,
                                                                          noisy: np.ndarray) -> None:
    starts = [displaced(phantom.centres.mean(axis=0), 5.0, 3.0, seed) for seed in range(20)]
    errors = run(noisy, surface_of(phantom), phantom, starts)
    assert np.median(errors) < 0.5 and max(errors) < 1.5


def test_captured_from_10_mm_and_8_degrees(phantom: SpineScene, noisy: np.ndarray) -> None:
    starts = [displaced(phantom.centres.mean(axis=0), 10.0, 8.0, seed) for seed in range(4)]
    assert max(run(noisy, surface_of(phantom), phantom, starts)) < 1.5


@pytest.mark.parametrize("along", [-36.0, 36.0])
def test_a_start_wrong_by_a_level_is_recovered(phantom: SpineScene, noisy: np.ndarray, along: float) -> None:
    start = displaced(phantom.centres.mean(axis=0), 3.0, 2.0, 4, along)
    result = register(noisy, surface_of(phantom), start, CRANIAL)
    assert errors_at(phantom, result).max() < 1.5
    assert result.shift == pytest.approx(-along, abs=6.0)


@pytest.mark.real_data
@pytest.mark.parametrize("subject", ["verse004", "verse008", "verse010"])
def test_real_columns(usx_data: Path, subject: str) -> None:
    scene = real_scene(usx_data / "shapes" / subject)
    points = as_ultrasound(scene.bone, 6000, noise=0.7, outliers=0.2, seed=2)
    starts = [displaced(scene.centres.mean(axis=0), 5.0, 3.0, seed) for seed in range(2)]
    assert max(run(points, surface_of(scene), scene, starts)) < 1.5


@pytest.mark.real_data
@pytest.mark.parametrize("along", [-34.0, 0.0, 34.0])
def test_two_real_levels_alone_are_not_taken_for_others(usx_data: Path, along: float) -> None:
    scene = real_scene(usx_data / "shapes" / "verse008")
    points = as_ultrasound(scene.bone[np.isin(scene.labels, [21, 22])], 4000, noise=0.7, outliers=0.2, seed=3)
    result = register(points, surface_of(scene), displaced(points.mean(axis=0), 4.0, 3.0, 5, along), CRANIAL)
    assert errors_at(scene, result)[1:3].max() < 1.5 and result.runner_up > 1.1


def test_a_spine_that_repeats_itself_is_reported_as_ambiguous() -> None:
    x, z = np.meshgrid(np.arange(-30.0, 30.0, 1.2), np.arange(-120.0, 120.0, 1.2))
    wave = np.column_stack([x.ravel(), 8.0 * np.cos(2 * np.pi * z.ravel() / 36.0) - x.ravel() ** 2 / 60, z.ravel()])
    surface = posterior_surface(wave, [0, 1, 0], CRANIAL)
    middle = wave[np.abs(wave[:, 2]) < 36.0]
    result = register(middle, surface, np.eye(4), CRANIAL)
    assert result.runner_up < 1.08


def test_same_numbers_for_the_same_input_and_for_any_order_of_points(phantom: SpineScene, noisy: np.ndarray) -> None:
    surface, start = surface_of(phantom), displaced(phantom.centres.mean(axis=0), 4.0, 2.0, 7)
    first = register(noisy, surface, start, CRANIAL)
    again = register(noisy, surface, start, CRANIAL)
    turned = register(noisy[::-1], surface, start, CRANIAL)
    assert np.array_equal(first.source_to_target, again.source_to_target)
    assert np.allclose(first.source_to_target, turned.source_to_target, atol=1e-6)


def test_covariance_covers_the_error_it_predicts(phantom: SpineScene) -> None:
    surface, distances = surface_of(phantom), []
    for seed in range(8):
        points = as_ultrasound(phantom.bone, 3000, noise=0.8, outliers=0.0, seed=seed)
        result = update(points, surface, np.eye(4), CRANIAL)
        error = transforms.apply(result.source_to_target, points.mean(axis=0)) - points.mean(axis=0)
        distances.append(np.linalg.norm(error) / np.sqrt(np.trace(result.covariance[3:, 3:])))
    assert 0.1 < np.median(distances) < 6.0  # the deviation is of the right order, neither vain nor empty


def test_numbers_tell_noise_and_outliers(phantom: SpineScene, noisy: np.ndarray) -> None:
    result = update(noisy, surface_of(phantom), np.eye(4), CRANIAL)
    assert result.overlap == pytest.approx(0.8, abs=0.06)
    assert 0.3 < result.median < 0.7 and result.median < result.p95 < 2.0
    assert len(result.residuals) == result.inliers.sum()


@pytest.mark.parametrize("factor", [(1.0, 1.0, 1.08), (1.08, 1.0, 1.0), (1.0, 1.1, 1.0), (0.92, 0.92, 0.92)])
def test_a_wrong_scale_shows_along_its_axis(phantom: SpineScene, factor: tuple[float, float, float]) -> None:
    points = as_ultrasound(phantom.bone, 6000, noise=0.5, outliers=0.1, seed=9)
    middle, surface = points.mean(axis=0), surface_of(phantom)
    wrong = middle + (points - middle) * factor
    pose = register(wrong, surface, np.eye(4), CRANIAL, RigidSettings(shifts=(0.0,))).source_to_target
    scales, deviations = axis_scales(wrong, surface, pose)
    assert 1.0 / scales == pytest.approx(factor, abs=0.03)
    assert deviations.max() < 0.02


def test_only_the_side_towards_the_probe_is_visible() -> None:
    random = np.random.default_rng(0)
    sphere = random.normal(size=(20000, 3))
    sphere *= 20.0 / np.linalg.norm(sphere, axis=1, keepdims=True)
    seen = visible_mask(sphere, [0, 1, 0], [0, 0, 1])
    assert seen[sphere[:, 1] > 8.0].mean() > 0.95
    assert seen[sphere[:, 1] < -14.0].mean() < 0.02


def test_islands_of_noise_are_no_main_bone() -> None:
    random = np.random.default_rng(0)
    bone = random.uniform([-30, -3, -60], [30, 3, 60], (6000, 3))
    process = random.uniform([38, -3, -5], [60, 3, 5], (300, 3))
    noise = np.array([[0.0, -60.0, 90.0], [80.0, -50.0, 0.0], [-70.0, -40.0, -20.0]])
    islands = np.repeat(noise, 25, axis=0) + random.uniform(-4, 4, (75, 3))
    mask = main_bone_mask(np.concatenate([bone, process, islands]))
    assert mask[:6300].all() and not mask[6300:].any()
    assert main_bone_mask(bone[:2]).all() and len(main_bone_mask(bone[:0])) == 0


def test_normals_look_at_the_viewer(phantom: SpineScene) -> None:
    surface = surface_of(phantom)
    assert np.all(surface.normals[:, 1] >= 0)
    assert np.allclose(np.linalg.norm(surface.normals, axis=1), 1.0)


@pytest.mark.parametrize(("points", "words"), [
    (np.zeros((0, 3)), "empty"),
    (np.zeros((5, 3)), "too small"),
    (np.full((500, 3), np.nan), "empty"),
])
def test_a_useless_cbct_is_refused(points: np.ndarray, words: str) -> None:
    with pytest.raises(BadSurface, match=words):
        posterior_surface(points, [0, 1, 0], CRANIAL)


def test_too_few_ultrasound_points_are_refused(phantom: SpineScene) -> None:
    with pytest.raises(BadSurface, match="49 ultrasound points"):
        register(phantom.bone[:49], surface_of(phantom), np.eye(4), CRANIAL)


@pytest.mark.parametrize("axis", [(0.0, 0.0, 0.0), (np.nan, 0.0, 1.0), (1.0, 0.0)])
def test_an_axis_without_direction_is_refused(phantom: SpineScene, axis: tuple[float, ...]) -> None:
    with pytest.raises(BadSurface, match="no direction"):
        visible_mask(voxel_downsample(phantom.bone, 5.0), axis, CRANIAL)
