"""What is left between an answer and what was seen: the Gaussian process on the surface."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, vertex_normals
from usx_common.transforms import apply, make_transform
from usx_completion.correction.polish import Asked, Polish, PolishSettings
from usx_completion.correction.scene import Scene
from usx_completion.outline import BINS, outline_of_region, silhouette
from usx_completion.rigid import rotation_matrix

APART_MM = 40.0
BUMP_MM = 1.5


@pytest.fixture(scope="module")
def answer(real_model):
    """(L, V, 3) the mean vertebrae, one above the other."""
    return real_model.means + APART_MM * np.arange(len(LEVELS))[::-1, None, None] * np.array([0.0, 0.0, 1.0])


@pytest.fixture(scope="module")
def truth(real_model, answer):
    """The same, with bone added smoothly around the tip of each spinous process."""
    result = answer.copy()
    for k, vertices in enumerate(answer):
        tip = vertices[np.argmax(vertices[:, 1])]
        grown = BUMP_MM * np.exp(-0.5 * np.sum((vertices - tip) ** 2, axis=1) / 8.0**2)
        result[k] += grown[:, None] * vertex_normals(Mesh(vertices, real_model.faces))
    return result


def scene_of(points, placed=None, outlines=None) -> Scene:
    """A scene of ultrasound points, and of outlines (L, 72, 2) with normals in the plane x = 0."""
    shown = np.full(len(LEVELS), outlines is not None)
    seen, facing = outlines or (np.zeros((len(LEVELS), BINS, 2)), np.zeros((len(LEVELS), BINS, 2)))
    return Scene(np.asarray(points, np.float32), np.zeros(len(points), np.int8), seen.astype(np.float32),
                 facing.astype(np.float32), shown, np.vstack([np.zeros(3), np.eye(3)]).astype(np.float32),
                 np.tile(np.eye(4), (len(LEVELS), 1, 1)),
                 np.ones(len(LEVELS), bool) if placed is None else np.asarray(placed))


def nothing() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((len(LEVELS), BINS, 2)), np.zeros((len(LEVELS), BINS, 2))


def behind(truth):
    """Every second vertex of the rear half of each level, as ultrasound sees it."""
    return np.concatenate([level[level[:, 1] > np.median(level[:, 1])][::2] for level in truth])


def test_the_posterior_is_that_of_the_textbook(real_model, answer):
    random = np.random.default_rng(1)
    settings = PolishSettings()
    vertices, normals = answer[0], vertex_normals(Mesh(answer[0], real_model.faces))
    rows = random.choice(len(vertices), 40, replace=False)
    asked = Asked(vertices[rows], normals[rows], random.standard_normal(40), random.uniform(0.3, 1.0, 40),
                  random.uniform(0.2, 0.6, 40))

    def kernel(a, b):
        far = np.sum((vertices[a][:, None] - vertices[b]) ** 2, axis=2) / settings.width_mm**2
        turned = np.sum((normals[a][:, None] - normals[b]) ** 2, axis=2) / settings.facing**2
        return settings.field_mm**2 * np.exp(-0.5 * (far + turned))

    steps = np.diag(asked.share)
    inverse = np.linalg.inv(steps @ kernel(rows, rows) @ steps + np.diag(asked.noise**2))
    across = kernel(np.arange(len(vertices)), rows) @ steps
    along, doubt = Polish(real_model)._posterior(vertices, normals, asked)
    assert np.allclose(along, across @ inverse @ asked.along, atol=1e-9)
    whole = 1.0 - np.einsum("vr,rs,vs->v", across, inverse, across) / settings.field_mm**2
    assert np.all(doubt**2 >= whole - 1e-9) and np.all(doubt <= 1.0)  # one place tells no more than all of them
    alone = Asked(*(getattr(asked, name)[:1] for name in vars(asked)))
    _, doubt = Polish(real_model)._posterior(vertices, normals, alone)
    told = (across[:, 0] ** 2) / (asked.share[0] ** 2 * settings.field_mm**2 + asked.noise[0] ** 2)
    assert np.allclose(doubt**2, 1.0 - told / settings.field_mm**2, atol=1e-9)


def test_bone_that_was_seen_is_followed_and_the_rest_stays(real_model, answer, truth):
    polished, doubt = Polish(real_model)(answer, scene_of(behind(truth)), nothing())
    for k in range(len(LEVELS)):
        normals = vertex_normals(Mesh(truth[k], real_model.faces))
        before, after = (np.abs(np.einsum("vi,vi->v", level[k] - truth[k], normals)) for level in (answer, polished))
        grown = before > 0.5
        assert after[grown].mean() < 0.3 * before[grown].mean()
        front = answer[k][:, 1] < np.quantile(answer[k][:, 1], 0.3)
        assert np.abs(polished[k] - answer[k])[front].max() < 1e-3
        assert doubt[k][front].min() > 0.99 and doubt[k][grown].mean() < 0.5


def test_points_that_are_of_nothing_change_nothing(real_model, answer):
    far = np.array([200.0, 0.0, 0.0]) + np.random.default_rng(2).standard_normal((500, 3))
    for points in (far, np.zeros((0, 3)), far[:1]):
        polished, doubt = Polish(real_model)(answer, scene_of(points), nothing())
        assert np.array_equal(polished, answer) and np.all(doubt == 1.0)


def test_outlines_that_are_of_another_place_change_nothing(real_model, answer):
    far = np.full((len(LEVELS), BINS, 2), 500.0), np.tile([1.0, 0.0], (len(LEVELS), BINS, 1))
    polished, doubt = Polish(real_model)(answer, scene_of(np.zeros((0, 3)), outlines=far), far)
    assert np.array_equal(polished, answer) and np.all(doubt == 1.0)


def test_levels_that_are_not_placed_stay(real_model, answer, truth):
    placed = np.array([True, False, True, True, False])
    polished, _ = Polish(real_model)(answer, scene_of(behind(truth), placed), nothing())
    moved = np.abs(polished - answer).max(axis=(1, 2)) > 0.1
    assert np.array_equal(moved, placed)


def test_the_order_of_points_and_where_the_spine_lies_do_not_matter(real_model, answer, truth):
    points = behind(truth)
    points = points + np.random.default_rng(4).normal(0.0, 0.3, points.shape)  # none is as near to two faces
    polish = Polish(real_model)
    polished, doubt = polish(answer, scene_of(points), nothing())
    again, _ = polish(answer, scene_of(points[::-1]), nothing())
    assert np.abs(again - polished).max() < 1e-6
    motion = make_transform(rotation_matrix(np.array([0.2, -0.1, 0.3])), np.array([10.0, -30.0, 20.0]))
    moved, moved_doubt = polish(np.stack([apply(motion, level) for level in answer]),
                                scene_of(apply(motion, points)), nothing())
    assert np.abs(moved - np.stack([apply(motion, level) for level in polished])).max() < 1e-3  # points are float32
    assert np.abs(moved_doubt - doubt).max() < 1e-3


def outlines_of(model, answer):
    """Points and normals (L, N, 2) of the bodies' outlines."""
    found = []
    for k, body in enumerate(model.xray_bodies):
        flat = answer[k][body][:, 1:]
        rim, middle = flat[silhouette(flat)], flat.mean(axis=0)
        outward = np.linspace(0.0, 1.0, 60)[:, None, None]
        found.append(outline_of_region((middle + outward * (rim - middle)).reshape(-1, 2)))
    return np.stack([outline.points for outline in found]), np.stack([outline.normals for outline in found])


def test_an_outline_moves_the_rim_of_the_body(real_model, answer):
    """By what one level's outline asks for besides the others."""
    polish, nowhere = Polish(real_model), np.zeros((0, 3))
    points, facing = outlines_of(real_model, answer)
    usual, _ = polish(answer, scene_of(nowhere, outlines=(points, facing)), (points, facing))
    farther = points.copy()
    front = facing[2, :, 0] < -0.7
    farther[2, front] += 1.2 * facing[2, front]
    moved, doubt = polish(answer, scene_of(nowhere, outlines=(farther, facing)), (farther, facing))
    for k, body in enumerate(real_model.xray_bodies):
        rim = body & (answer[k][:, 1] < answer[k][body][:, 1].min() + 1.0)
        asked = (moved[k] - usual[k])[rim, 1].mean()
        assert asked < -0.25 if k == 2 else abs(asked) < 0.05
        assert doubt[k][rim].mean() < 0.95


def test_outlines_that_are_all_drawn_farther_out_ask_for_nothing(real_model, answer):
    """What is alike on all levels is how they were drawn."""
    polish, nowhere = Polish(real_model), np.zeros((0, 3))
    points, facing = outlines_of(real_model, answer)
    for out in (-1.0, 1.0):
        seen = points + out * facing
        moved, _ = polish(answer, scene_of(nowhere, outlines=(seen, facing)), (seen, facing))
        assert np.abs(moved - answer)[:, real_model.body].mean() < 0.1


def test_it_can_be_switched_off_and_settings_without_sense_are_refused(real_model, answer, truth):
    polished, _ = Polish(real_model, PolishSettings(field_mm=0.0))(answer, scene_of(behind(truth)), nothing())
    assert np.array_equal(polished, answer)
    for bad in ({"width_mm": 0.0}, {"noise": -1.0}, {"field_mm": float("nan")}, {"reach_mm": 1e3}):
        with pytest.raises(UsxError, match=f"PolishSettings {next(iter(bad))}"):
            replace(PolishSettings(), **bad)
