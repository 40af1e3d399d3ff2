"""The iiwa 14: kinematics against published reference poses, limits, and refusal of what it cannot reach."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usx_phantom import robot

# Flange poses (m) that lbr_description's iiwa14 URDF gives for joint angles (rad).
REFERENCE = [
    ([0, 0, 0, 0, 0, 0, 0], [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1.306], [0, 0, 0, 1]]),
    ([0, np.pi / 2, 0, 0, 0, 0, 0], [[0, 0, 1, 0.946], [0, 1, 0, 0], [-1, 0, 0, 0.36], [0, 0, 0, 1]]),
    ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
     [[-0.037301428, -0.977762001, 0.206373625, 0.041336558], [0.946649218, 0.031577974, 0.320714967, -0.004314955],
      [-0.320099769, 0.207326557, 0.92441973, 1.278749314], [0, 0, 0, 1]]),
    ([0.5, -0.3, 0.2, -1.2, -0.4, 0.9, 1.1],
     [[-0.353338037, -0.164594039, 0.920902293, 0.240342994], [0.575866255, 0.737517203, 0.352769658, 0.196758393],
      [-0.737245067, 0.654963493, -0.165808728, 0.986797257], [0, 0, 0, 1]]),
]


def in_metres(pose):
    result = np.array(pose, float)
    result[:3, 3] *= 1e-3
    return result


@pytest.mark.parametrize(("q", "pose"), REFERENCE)
def test_forward_kinematics_against_the_reference(q, pose):
    assert np.abs(in_metres(robot.forward(np.array(q))) - np.array(pose)).max() < 1e-9


@pytest.mark.real_data
def test_robot_against_the_facts_file(usx_data):
    facts = json.loads((usx_data / "robot" / "iiwa14_facts.json").read_text())
    for case in facts["fk_reference"]:
        assert np.abs(in_metres(robot.forward(case["q_rad"])) - np.array(case["T_link0_ee"])).max() < 1e-9
    joints = facts["joints"]
    assert np.allclose(robot.ORIGINS, np.array([j["origin_xyz_m"] for j in joints]) * 1e3)
    assert np.allclose(robot.AXES, [j["axis"] for j in joints])
    assert np.allclose(robot.POSITION_LIMITS, [j["upper_rad"] for j in joints])
    assert np.allclose(robot.VELOCITY_LIMITS, [j["velocity_rad_s"] for j in joints])
    names = robot.NAMING["rolling"]
    assert list(names.joints) == [j["name"] for j in joints]
    assert list(names.links) == [joints[0]["parent"]] + [j["child"] for j in joints]
    assert names.flange == facts["ee"]["child"] and names.root == facts["root_link"]
    assert robot.NAMING["humble"].links[0] in facts["naming"]["humble_v2.1.2_cca24ae"]["root"]


angles = st.lists(st.floats(-0.7, 0.7), min_size=7, max_size=7)


@settings(max_examples=25, deadline=None)
@given(angles)
def test_jacobian_against_differences(q):
    q, h = np.array(q), 1e-6
    for joint in range(7):
        step = np.zeros(7)
        step[joint] = h
        plus, minus = robot.forward(q + step), robot.forward(q - step)
        column = robot.jacobian(q)[:, joint]
        assert np.allclose((plus - minus)[:3, 3] / (2 * h), column[:3], atol=1e-3)
        spin = (plus[:3, :3] - minus[:3, :3]) / (2 * h) @ robot.forward(q)[:3, :3].T
        assert np.allclose([spin[2, 1], spin[0, 2], spin[1, 0]], column[3:], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(angles, angles)
def test_inverse_finds_reachable_poses_within_limits(q, nudge):
    goal = np.array([0.0, 0.5, 0.0, -1.4, 0.0, 1.0, 0.0]) + 0.5 * np.array(q)
    target = robot.forward(goal)
    found = robot.inverse(target, goal + 0.3 * np.array(nudge))
    assert np.abs(robot.forward(found) - target).max() < 1e-3
    assert (np.abs(found) <= robot.POSITION_LIMITS).all()


def test_inverse_stays_within_limits_where_newton_would_leave_them():
    near = np.array([0.0, 0.5, 0.0, -2.05, 0.0, 1.0, 3.0])
    found = robot.inverse(robot.forward(near), np.array([0.0, 0.5, 0.0, -2.09, 0.0, 1.0, 3.05]))
    assert (np.abs(found) <= robot.POSITION_LIMITS).all()


@pytest.mark.parametrize("place", [(2000.0, 0.0, 300.0), (0.0, 0.0, -900.0), (0.0, 0.0, 5000.0)])
def test_poses_out_of_reach_are_refused(place):
    target = np.eye(4)
    target[:3, 3] = place
    with pytest.raises(robot.BadRobotTarget, match="out of the robot's reach"):
        robot.inverse(target, np.full(7, 0.3))


def test_too_fast_and_too_far_are_refused():
    times = np.array([0.0, 0.1])
    with pytest.raises(robot.BadRobotTarget, match=r"joint A4 .* greatest speed"):
        robot.check_velocities(np.array([[0.0] * 7, [0, 0, 0, 0.5, 0, 0, 0]]), times)
    with pytest.raises(robot.BadRobotTarget, match="joint A2 would turn to 130"):
        robot.check_velocities(np.array([[0, np.radians(130), 0, 0, 0, 0, 0]] * 2), times)
    robot.check_velocities(np.zeros((2, 7)), times)
