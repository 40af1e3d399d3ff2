"""Segmentation against outlines that are known analytically; simulated and real anatomy: tests/real, phantom test."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial import cKDTree

from usx_xray.bodies import filled, overlap_share, segment_bodies
from usx_xray.body_points import bodies_to_points, label_image
from usx_xray.geometry import XrayGeometry
from usx_xray.refusal import Refused
from usx_xray.seeds import Seed

MM_PER_PIXEL = 750.0 / 3600.0


def errors(radiograph, found) -> tuple[np.ndarray, np.ndarray]:
    """Dice, and mean symmetric outline distance in mm, of each body."""
    dice, distance = [], []
    for body in found.bodies:
        truth = radiograph.outlines[body.label - 20]
        ours = filled(body.outline, radiograph.pixels.shape)
        real = filled(truth, radiograph.pixels.shape)
        dice.append(2.0 * (ours & real).sum() / (ours.sum() + real.sum()))
        forth, back = cKDTree(truth).query(body.outline)[0], cKDTree(body.outline).query(truth)[0]
        distance.append((forth.mean() + back.mean()) / 2.0 * MM_PER_PIXEL)
    return np.array(dice), np.array(distance)


@pytest.mark.parametrize("seed", range(3))
def test_outline_within_a_millimetre_with_clicks_off_by_three(make_radiograph: Callable, seed: int) -> None:
    radiograph = make_radiograph(seed, jitter=3.0)
    found = segment_bodies(radiograph.pixels, radiograph.geometry, radiograph.seeds)
    dice, distance = errors(radiograph, found)
    assert len(dice) == 5 and not found.problems
    assert dice.min() > 0.93 and distance.max() < 1.0
    assert min(body.confidence for body in found.bodies) > 0.5


def test_dark_bone_is_found_as_well(make_radiograph: Callable) -> None:
    radiograph = make_radiograph(1, jitter=2.0)
    found = segment_bodies(-radiograph.pixels, radiograph.geometry, radiograph.seeds)
    assert errors(radiograph, found)[0].min() > 0.93


def test_exposure_does_not_matter(make_radiograph: Callable) -> None:
    radiograph = make_radiograph(2)
    plain = segment_bodies(radiograph.pixels, radiograph.geometry, radiograph.seeds)
    scaled = segment_bodies(radiograph.pixels * 700.0 + 9000.0, radiograph.geometry, radiograph.seeds)
    for first, second in zip(plain.bodies, scaled.bodies, strict=True):
        np.testing.assert_allclose(first.outline, second.outline, atol=0.2)


def test_a_spine_that_lies_across_the_image(make_radiograph: Callable) -> None:
    radiograph = make_radiograph(3, rotation=np.radians(80.0), size=(700, 900))
    found = segment_bodies(radiograph.pixels, radiograph.geometry, radiograph.seeds)
    assert errors(radiograph, found)[0].min() > 0.93


def test_collimator_border_next_to_the_bodies(make_radiograph: Callable) -> None:
    radiograph = make_radiograph(0)
    edge = int(max(outline[:, 0].max() for outline in radiograph.outlines)) + 20
    radiograph.pixels[:, edge:] += 25.0
    found = segment_bodies(radiograph.pixels, radiograph.geometry, radiograph.seeds)
    assert errors(radiograph, found)[0].min() > 0.9


def test_nothing_to_see(make_radiograph: Callable) -> None:
    radiograph = make_radiograph(0)
    noise = np.random.default_rng(0).normal(size=radiograph.pixels.shape)
    found = segment_bodies(noise, radiograph.geometry, radiograph.seeds, minimum_confidence=0.6)
    assert not found.bodies and {reason for reason, _ in found.problems} <= {"no_clear_outline"}


def test_constant_image(make_radiograph: Callable) -> None:
    radiograph = make_radiograph(0)
    found = segment_bodies(np.zeros_like(radiograph.pixels), radiograph.geometry, radiograph.seeds)
    assert not found.bodies and len(found.problems) == 5


def test_body_cut_by_the_border_is_told(make_radiograph: Callable) -> None:
    radiograph = make_radiograph(0)
    top = int(radiograph.seeds[0].row) - 20
    seeds = [Seed(s.label, s.column, s.row - top) for s in radiograph.seeds]
    point = radiograph.geometry.principal_point
    geometry = XrayGeometry((3600.0, 3600.0), (point[0], point[1] - top), 750.0, 1080.0)
    found = segment_bodies(radiograph.pixels[top:], geometry, seeds)
    assert [body.level for body in found.bodies] == ["L2", "L3", "L4", "L5"]
    assert found.problems[0][0] == "body_at_image_border" and "L1" in found.problems[0][1]


def test_two_seeds_in_one_body(make_radiograph: Callable) -> None:
    radiograph = make_radiograph(0)
    first, second = radiograph.seeds[:2]
    for offset in (30.0, 75.0):  # pixels: 6 and 16 mm
        seeds = [first, Seed(second.label, first.column + offset, first.row), *radiograph.seeds[2:]]
        with pytest.raises(Refused) as caught:
            segment_bodies(radiograph.pixels, radiograph.geometry, seeds)
        assert caught.value.reason == "two_seeds_in_one_body"
        assert "L1" in str(caught.value) and "L2" in str(caught.value)


def test_not_finite(make_radiograph: Callable) -> None:
    radiograph = make_radiograph(0)
    radiograph.pixels[0, 0] = np.nan
    with pytest.raises(Refused) as caught:
        segment_bodies(radiograph.pixels, radiograph.geometry, radiograph.seeds)
    assert caught.value.reason == "bad_pixel_data"


def test_overlap_share_of_squares() -> None:
    square = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0]])
    assert overlap_share(square, square + [5.0, 0.0]) == pytest.approx(0.5, abs=0.05)
    assert overlap_share(square, square + [20.0, 0.0]) == 0.0


def test_points_fill_the_bodies_on_the_mid_plane(make_radiograph: Callable) -> None:
    radiograph = make_radiograph(0)
    found = segment_bodies(radiograph.pixels, radiograph.geometry, radiograph.seeds)
    points, labels = bodies_to_points(found.bodies, radiograph.geometry)
    assert set(labels) == {20.0, 21.0, 22.0, 23.0, 24.0} and (points[:, 2] == 750.0).all()
    mask = label_image(found.bodies, radiograph.pixels.shape)
    pixels = np.rint(radiograph.geometry.points_to_pixels(points)).astype(int)
    agree = mask[pixels[:, 1], pixels[:, 0]] == labels
    assert agree.mean() > 0.95
    for label in range(20, 25):  # about one point per square millimetre
        area = (mask == label).sum() * MM_PER_PIXEL**2
        assert abs((labels == label).sum() / area - 1.0) < 0.05
    dense, _ = bodies_to_points(found.bodies[:1], radiograph.geometry, spacing=0.05)
    assert len(dense) <= 20_500
