"""Bad partial clouds, outlines in the X-ray's plane, and spinous processes."""

from __future__ import annotations

import numpy as np
import pytest

from usx_common.errors import UsxError
from usx_completion.observation import BadPartial, ObservationSettings, as_codes, observe
from usx_completion.outline import fit_plane, outline_of_region, silhouette
from usx_completion.spinous import spinous_tips


def cloud(count=500, seed=0):
    random = np.random.default_rng(seed)
    return random.uniform([-40, 0, -90], [40, 30, 90], (count, 3)), np.full(count, 22), np.zeros(count, int)


def _with(points=None, labels=None, sources=None, count=500):
    p, la, so = cloud(count)
    return p if points is None else points, la if labels is None else labels, so if sources is None else sources


LINE = np.column_stack([np.zeros(500), np.zeros(500), np.linspace(-90, 90, 500)])
BAD = {
    "empty": (np.empty((0, 3)), np.empty(0, int), np.empty(0, int)),
    "too_few_points": _with(count=1),
    "no_extent": _with(points=LINE),
    "wrong_shape": _with(labels=np.full(3, 22)),
    "unknown_label": _with(labels=np.full(500, 25)),
    "unknown_source": _with(sources=np.full(500, 2)),
    "too_large": _with(points=cloud()[0] * 1000.0),
}


@pytest.mark.parametrize("reason", BAD)
def test_an_unusable_cloud_is_refused_with_its_reason(reason):
    with pytest.raises(BadPartial) as refusal:
        observe(*BAD[reason])
    assert refusal.value.reason == reason


def test_all_rows_not_finite_are_refused_and_some_are_dropped():
    points, labels, sources = cloud()
    with pytest.raises(BadPartial, match="0 usable"):
        observe(np.full_like(points, np.nan), labels, sources)
    points[::5, 1] = np.inf
    observation = observe(points, labels, sources)
    assert observation.dropped == 100 and np.isfinite(observation.points).all()


def test_millions_of_points_are_bounded_and_the_bound_is_deterministic():
    random = np.random.default_rng(1)
    points = random.uniform([-40, 0, -90], [40, 30, 90], (2_000_000, 3))
    labels, sources = np.full(len(points), 21), np.zeros(len(points), int)
    settings = ObservationSettings(voxel_mm=3.0, largest_cloud=200_000)
    first, second = observe(points, labels, sources, settings), observe(points, labels, sources, settings)
    assert len(first.points) < 30_000 and np.array_equal(first.points, second.points)


@pytest.mark.parametrize("values", [[20.5], [np.nan], [np.inf], [1e12]])
def test_codes_must_be_whole_numbers(values):
    with pytest.raises(BadPartial) as refusal:
        as_codes(np.asarray(values, np.float32), "label", np.zeros((len(values), 3)))
    assert refusal.value.reason == "unknown_label"
    assert as_codes(np.asarray([20.0, 0.0], np.float32), "label", np.zeros((2, 3))).tolist() == [20, 0]
    row = np.array([[0.0, 0.0, 0.0], [np.nan, 0.0, 0.0]])  # a row that will be dropped may hold anything
    assert as_codes(np.asarray([21.0, np.nan], np.float32), "label", row).tolist() == [21, 0]


def filled_ellipse(a=17.0, b=14.0, step=0.8):
    y, z = np.meshgrid(np.arange(-25, 25, step), np.arange(-25, 25, step))
    inside = (y / a) ** 2 + (z / b) ** 2 <= 1.0
    return np.column_stack([y[inside], z[inside]])


@pytest.mark.parametrize("thin", [1, 3])
def test_the_outline_of_a_filled_ellipse_is_the_ellipse(thin):
    outline = outline_of_region(filled_ellipse()[::thin] + [100.0, -40.0])
    relative = outline.points - [100.0, -40.0]
    radius = np.sqrt((relative[:, 0] / 17.0) ** 2 + (relative[:, 1] / 14.0) ** 2)
    assert np.abs(radius - 1.0).mean() * 15.0 < 0.5 * thin
    normals = relative / [17.0**2, 14.0**2]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    assert np.sum(outline.normals * normals, axis=1).mean() > 0.9


def test_stray_points_do_not_move_the_outline():
    region = filled_ellipse()
    clean = outline_of_region(region)
    dirty = outline_of_region(np.vstack([region, [[60.0, 0.0], [61.0, 0.5], [-55.0, 30.0]]]))
    np.testing.assert_allclose(dirty.points, clean.points, atol=1.0)


@pytest.mark.parametrize("region", [filled_ellipse()[:10], filled_ellipse() * 0.2, filled_ellipse() * 3.0,
                                    filled_ellipse() * 50.0])
def test_a_region_that_is_no_body_is_refused(region):
    with pytest.raises(UsxError):
        outline_of_region(region)


def test_the_plane_of_a_tilted_xray_is_found_and_a_frontal_one_refused():
    flat = filled_ellipse()
    tilt = np.radians(10.0)
    points = np.column_stack([np.zeros(len(flat)), flat])
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1.0]])
    plane = fit_plane(points @ turn.T)
    np.testing.assert_allclose(plane.axes[0], turn[:, 0], atol=1e-9)
    assert np.linalg.det(plane.axes) == pytest.approx(1.0)
    with pytest.raises(UsxError, match="sagittal"):
        fit_plane(points[:, [1, 0, 2]])
    with pytest.raises(UsxError, match="line"):
        fit_plane(LINE)


def test_the_silhouette_of_a_disc_is_its_rim():
    flat = filled_ellipse()
    rim = flat[silhouette(flat)]
    assert np.sqrt((rim[:, 0] / 17) ** 2 + (rim[:, 1] / 14) ** 2).min() > 0.9


def spine_like(count):
    """Laminae with ``count`` crests every 32 mm."""
    random = np.random.default_rng(3)
    points = random.uniform([-25, 0, -100], [25, 4, 100], (20_000, 3))
    centres = (np.arange(count) - (count - 1) / 2) * 32.0
    crest = np.abs(points[:, 0]) < 4
    for z in centres:
        points[crest & (np.abs(points[:, 2] - z) < 10), 1] += 25.0
    return points, centres[::-1]


def test_five_crests_give_five_tips_and_other_numbers_are_refused():
    points, centres = spine_like(5)
    tips = spinous_tips(points)
    np.testing.assert_allclose(tips[:, 2], centres, atol=3.0)
    assert np.abs(tips[:, 0]).max() < 3.0 and tips[:, 1].min() > 24.0
    for count in (3, 4, 6):
        with pytest.raises(UsxError, match="five are needed"):
            spinous_tips(spine_like(count)[0])
    with pytest.raises(UsxError, match="too little"):
        spinous_tips(points[np.abs(points[:, 2]) < 20])
