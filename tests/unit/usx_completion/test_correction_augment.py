"""Training examples made harder, larger and smaller."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from usx_common.transforms import make_transform
from usx_completion.correction.augment import AugmentSettings, augmented, put_right, stretched
from usx_completion.correction.examples import displacement
from usx_completion.correction.scene import make_scene, observation_of


def test_augmentation_keeps_the_truth_and_tells_where_the_xray_went(real_model, examples):
    example = examples[0]
    settings = AugmentSettings(stretch_sd=0.0, untouched=0.0, blind=0.0, truthful=0.0,
                               displaced=1.0, xray_turn_sd=0.0, xray_turn_most=0.0, outline_scale_sd=0.0, drawn=0.0)
    first, second = (augmented(example, settings, np.random.default_rng(4), real_model) for _ in range(2))
    assert np.array_equal(first.scene.points, second.scene.points) and np.array_equal(first.vertices, example.vertices)
    shift = (first.scene.outlines - example.scene.outlines).mean(axis=(1, 2))
    moved = first.displaced - example.displaced
    assert np.abs(shift).max() > 0.1
    np.testing.assert_allclose(moved.mean(axis=1), -shift, atol=1e-3)
    never = AugmentSettings(stretch_sd=0.0, untouched=0.0, blind=1.0)
    blind = augmented(example, never, np.random.default_rng(4), real_model)
    assert not blind.scene.shown.any()


def test_an_augmented_scene_starts_where_completion_would_start_it(real_model, examples):
    """Nothing made harder but for the new start: it is that of the same cloud, to rounding."""
    still = AugmentSettings(stretch_sd=0.0, untouched=1.0, restarted=1.0, common_turn_sd=0.0, common_move_sd=0.0,
                            level_turn_sd=0.0, level_move_sd=0.0)
    for example in examples:
        expected, _ = make_scene(real_model, observation_of(example.scene))
        elsewhere = replace(expected, poses=expected.poses @ make_transform(np.eye(3), [9, 0, 0]))
        again = augmented(replace(example, scene=elsewhere), still, np.random.default_rng(2), real_model)
        np.testing.assert_allclose(again.scene.poses, expected.poses, atol=1e-3)
        np.testing.assert_allclose(again.scene.points, expected.points, atol=1e-4)
        np.testing.assert_allclose(again.scene.outlines, expected.outlines, atol=1e-4)


def test_a_stretched_example_is_one_of_a_larger_person(real_model, examples):
    example, factors = examples[0], np.array([0.95, 1.06, 1.04])
    larger = stretched(example, factors)
    assert np.allclose(larger.vertices, example.vertices * factors, atol=1e-3)
    assert np.allclose(larger.scene.points, example.scene.points * factors, atol=1e-3)
    # where the X-ray lies is found again on the larger bones, to what the plane's tilt makes of 6 %
    found = displacement(real_model, observation_of(larger.scene), larger.vertices)
    assert np.abs(found - larger.displaced).max() < 0.35
    assert np.allclose(np.linalg.norm(larger.scene.outline_normals, axis=-1), 1.0, atol=1e-5)
    same = stretched(example, np.ones(3))
    assert np.allclose(same.scene.outlines, example.scene.outlines, atol=1e-4)
    assert np.allclose(same.scene.outline_normals, example.scene.outline_normals, atol=1e-5)
    assert np.array_equal(same.scene.poses, example.scene.poses)


def test_an_xray_put_right_shows_the_bodies_where_they_are(real_model, examples):
    """Displaced by 6 mm and 5 degrees, its outlines come back as near to the bodies as the X-ray's own errors let
    them."""
    example = examples[0]
    angle = np.radians(5.0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    scene = replace(example.scene, outlines=(example.scene.outlines @ turn.T + [6.0, -2.0]).astype(np.float32),
                    outline_normals=(example.scene.outline_normals @ turn.T).astype(np.float32))
    right, left = put_right(scene, example.vertices, real_model)
    assert np.abs(right.outlines - example.scene.outlines).mean() < 0.5
    assert np.einsum("lni,lni->ln", right.outline_normals, example.scene.outline_normals).min() > 0.99
    found = displacement(real_model, observation_of(right), example.vertices)
    np.testing.assert_allclose(left, found, atol=0.05)
    assert np.abs(left).max() < 0.8
    assert np.array_equal(right.points, scene.points) and np.array_equal(right.poses, scene.poses)


def test_outlines_drawn_otherwise_move_along_their_normals_and_are_no_displacement(real_model, examples):
    example = examples[0]
    settings = AugmentSettings(stretch_sd=0.0, untouched=0.0, blind=0.0, truthful=0.0,
                               displaced=0.0, drawn=1.0, side_sd=0.0,
                               side_level_sd=0.0, back_sd=0.0, back_trend_sd=1.0)
    drawn = augmented(example, settings, np.random.default_rng(3), real_model)
    assert np.array_equal(drawn.displaced, example.displaced)
    normals = example.scene.outline_normals
    moved = drawn.scene.outlines - example.scene.outlines
    along = np.einsum("lni,lni->ln", moved, normals)
    np.testing.assert_allclose(moved, along[..., None] * normals, atol=1e-4)
    back = normals[..., 0] > 0.0
    assert np.abs(along[~back]).max() < 1e-4
    most = np.where(back, along, 0.0)[np.arange(5), np.abs(along).argmax(axis=1)]
    np.testing.assert_allclose(np.diff(most), np.diff(most).mean(), rtol=0.02)  # a trend from level to level
    assert np.abs(most[0]) > 0.5 and abs(most[2]) < 1e-4
