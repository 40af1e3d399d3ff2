"""Landmarks found by geometry: where anatomy puts them, the same in any pose and in the mirror."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_common.transforms import apply, make_transform, rotation_about_axis
from usx_completion.landmarks import NAMES, find_landmarks, transferred
from usx_completion.mesh_subjects import mirrored


@pytest.fixture(scope="module")
def vertebra(shape_model):
    return shape_model.mean_mesh("L3")


@pytest.fixture(scope="module")
def landmarks(vertebra):
    return find_landmarks(vertebra)


def test_every_landmark_is_found_where_anatomy_puts_it(landmarks, vertebra):
    at = {name: landmarks.centre(name) for name in NAMES}
    assert set(landmarks.points) == set(NAMES)
    low, high = vertebra.vertices.min(axis=0), vertebra.vertices.max(axis=0)
    assert at["spinous tip"][1] > high[1] - 5.0
    assert at["left transverse tip"][0] > high[0] - 2.0 and at["right transverse tip"][0] < low[0] + 2.0
    assert at["left superior facet tip"][2] > at["upper end plate centre"][2] > 8.0
    assert at["left inferior facet tip"][2] < at["lower end plate centre"][2] < -8.0
    assert at["upper anterior rim"][1] < -12.0 and at["lower left rim"][0] > 15.0
    body_back = at["upper end plate centre"][1] + 8.0
    assert body_back < at["canal centre"][1] < at["spinous tip"][1] - 20.0


def test_landmarks_move_with_the_bone(landmarks, vertebra):
    pose = make_transform(rotation_about_axis([1.0, 0.3, 0.2], 0.2), [30.0, -40.0, 200.0])
    found = find_landmarks(vertebra.transformed(pose))
    for name in NAMES:
        # the point of a round rim that sticks out most depends on the frame, which is found anew
        np.testing.assert_allclose(found.centre(name), apply(pose, landmarks.centre(name)[None])[0],
                                   atol=3.0 if "rim" in name else 1.5)


def test_left_and_right_change_places_in_the_mirror(landmarks, vertebra):
    found = find_landmarks(mirrored(vertebra))
    for name in NAMES:
        other = name.replace("left", "?").replace("right", "left").replace("?", "right")
        np.testing.assert_allclose(found.centre(other) * [-1, 1, 1], landmarks.centre(name), atol=1.5)


def test_landmarks_on_the_surface_go_where_its_vertices_go(landmarks, vertebra):
    bent = vertebra.vertices * [1.1, 0.9, 1.05] + [1.0, 2.0, 3.0]
    carried = transferred(landmarks, vertebra, bent)
    for name in NAMES:
        # an affine map takes points of a triangle exactly; the middle of a tip lies within 1 mm of its surface
        np.testing.assert_allclose(carried[name], landmarks.centre(name) * [1.1, 0.9, 1.05] + [1.0, 2.0, 3.0], atol=1.0)


def test_a_shape_without_a_canal_is_refused():
    ball = trimesh.creation.icosphere(4, 25.0)
    with pytest.raises(UsxError, match="canal"):
        find_landmarks(Mesh(np.asarray(ball.vertices), np.asarray(ball.faces)))


def test_the_spinous_tip_is_the_middle_of_the_rear_edge_and_does_not_jump_along_it(landmarks, vertebra):
    tip, height = landmarks.centre("spinous tip"), vertebra.vertices[:, 2]
    behind = vertebra.vertices[:, 1] > 25.0
    for slope in (-0.15, 0.15):
        sheared = vertebra.vertices.copy()
        sheared[behind, 1] += slope * (height[behind] - tip[2])  # the upper or the lower end becomes the rearmost
        found = find_landmarks(Mesh(sheared, vertebra.faces)).centre("spinous tip")
        assert abs(found[2] - tip[2]) < 2.5
