"""Pose buffer, frame chain and matching: interpolation, every gate, nothing extrapolated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from usx_common.errors import UsxError
from usx_common.transforms import make_transform
from usx_compounding.frame_tree import FrameTree
from usx_compounding.matching import FrameMatcher, MatchedFrame, RejectedFrame, TimedFrame
from usx_compounding.pose_buffer import PoseBuffer, PoseGates, PoseSample

MS = 1_000_000
IMAGE = np.zeros((2, 2), dtype=np.uint8)


def pose(x=0.0, angle=0.0):
    return make_transform(Rotation.from_euler("z", angle, degrees=True).as_matrix(), [x, 0.0, 0.0])


def buffer_of(*samples, **gates):
    buffer = PoseBuffer(PoseGates(**gates))
    for sample in samples:
        buffer.add(sample)
    return buffer


def test_between_two_samples_the_screw_motion():
    buffer = buffer_of(PoseSample(0, pose(0, 0)), PoseSample(10 * MS, pose(1, 2)))
    answer = buffer.at(5 * MS)
    assert answer.reason == "ok"
    turned = Rotation.from_matrix(answer.probe_to_world[:3, :3]).as_euler("zyx", degrees=True)
    assert turned == pytest.approx([1, 0, 0], abs=1e-9)


def test_an_exact_time_needs_no_neighbours():
    buffer = buffer_of(PoseSample(5 * MS, pose(3)))
    assert buffer.at(5 * MS).probe_to_world[0, 3] == 3


@pytest.mark.parametrize(("samples", "moment", "gates", "reason"), [
    ([], 0, {}, "no_pose"),
    ([PoseSample(10 * MS, pose())], 5 * MS, {}, "before_first_pose"),
    ([PoseSample(10 * MS, pose())], 15 * MS, {}, "no_later_pose"),
    ([PoseSample(0, pose()), PoseSample(60 * MS, pose())], 30 * MS, {}, "pose_gap"),
    ([PoseSample(0, pose()), PoseSample(60 * MS, pose())], 30 * MS, {"max_gap": 0.06}, "ok"),
    ([PoseSample(0, pose(), ok=False), PoseSample(10 * MS, pose())], 5 * MS, {}, "pose_invalid"),
    ([PoseSample(0, pose()), PoseSample(10 * MS, pose(), ok=False)], 10 * MS, {}, "pose_invalid"),
    ([PoseSample(0, pose()), PoseSample(10 * MS, pose(20))], 5 * MS, {}, "pose_speed"),
    ([PoseSample(0, pose()), PoseSample(10 * MS, pose(20))], 10 * MS, {}, "pose_speed"),
    ([PoseSample(0, pose()), PoseSample(10 * MS, pose(20))], 5 * MS, {"max_speed": 0}, "ok"),
    ([PoseSample(0, pose()), PoseSample(10 * MS, pose(0, 10))], 5 * MS, {}, "pose_speed"),
])
def test_gates(samples, moment, gates, reason):
    answer = buffer_of(*samples, **gates).at(moment)
    assert answer.reason == reason and (answer.probe_to_world is not None) == (reason == "ok")


def test_what_becomes_of_samples():
    buffer = PoseBuffer(PoseGates(), capacity=3)
    assert [buffer.add(PoseSample(t * MS, pose())) for t in (100, 110, 105)] == ["added"] * 3
    assert buffer.add(PoseSample(110 * MS, pose())) == "duplicate"
    assert buffer.add(PoseSample(90 * MS, pose())) == "too_old"
    assert buffer.add(PoseSample(120 * MS, pose())) == "added" and len(buffer) == 3
    assert buffer.add(PoseSample(130 * MS, np.diag([2.0, 1, 1, 1]))) == "not_rigid"
    assert buffer.add(PoseSample(121 * MS - 600 * MS, pose())) == "jumped_back"
    assert len(buffer) == 1


def test_a_usable_sample_replaces_an_invalid_one_of_the_same_time():
    buffer = buffer_of(PoseSample(0, pose(), ok=False), PoseSample(0, pose(7)))
    assert buffer.at(0).probe_to_world[0, 3] == 7


def test_a_still_pose_is_noticed():
    buffer = buffer_of(PoseSample(0, pose(1)), *(PoseSample(t * MS, pose(2)) for t in (10, 20, 30)))
    assert buffer.still_since() == 20 * MS


@settings(max_examples=100, deadline=None)
@given(samples=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1), st.booleans()), min_size=1, max_size=25))
def test_the_still_period_is_that_of_the_samples_in_the_order_of_time(samples):
    buffer, kept = PoseBuffer(PoseGates(jump_back=10.0)), {}
    for t, x, ok in samples:
        buffer.add(PoseSample(t * MS, pose(x), ok))
        if t not in kept or (ok and not kept[t][1]):
            kept[t] = (x, ok)
        newest = max(kept)
        broken = [t for t in kept if kept[t] != kept[newest]]
        first = min(t for t in kept if not broken or t > max(broken))
        assert buffer.still_since() == (newest - first) * MS


def test_asking_for_the_still_period_compares_no_poses(monkeypatch):
    buffer = buffer_of(*(PoseSample(t * MS, pose(2)) for t in range(0, 1000, 10)))
    monkeypatch.setattr(np, "array_equal", None)
    assert buffer.still_since() == 990 * MS


@pytest.mark.parametrize("gates", [{"max_gap": 0}, {"staleness": -1}, {"jump_back": 0}, {"max_speed": -1}])
def test_senseless_gates_are_refused(gates):
    with pytest.raises(UsxError):
        PoseGates(**gates)


@settings(max_examples=50, deadline=None)
@given(times=st.lists(st.integers(0, 40), min_size=2, max_size=15, unique=True), moment=st.integers(0, 40 * 10))
def test_the_order_of_arrival_changes_nothing_and_nothing_is_extrapolated(times, moment):
    one, other = PoseBuffer(PoseGates()), PoseBuffer(PoseGates())
    for t in times:
        one.add(PoseSample(t * 10 * MS, pose(t)))
    for t in sorted(times):
        other.add(PoseSample(t * 10 * MS, pose(t)))
    first, second = one.at(moment * MS), other.at(moment * MS)
    assert first.reason == second.reason
    if first.probe_to_world is not None:
        assert np.array_equal(first.probe_to_world, second.probe_to_world)
        assert min(times) - 1e-9 <= first.probe_to_world[0, 3] <= max(times) + 1e-9
        assert first.probe_to_world[0, 3] == pytest.approx(moment / 10)
    else:
        assert moment < 10 * min(times) or moment > 10 * max(times) or first.reason == "pose_gap"


# -- the chain of a robot -----------------------------------------------------------------------------------------

def tree():
    made = FrameTree("world", "us_probe", PoseGates())
    made.set_fixed("world", "base", pose(1000))
    made.set_fixed("tool", "us_probe", pose(5))
    return made


def test_a_chain_of_one_publisher_gives_exact_samples():
    chain = tree()
    assert chain.samples() == [] and chain.missing() == "no transform from frame 'tool' towards 'world' has come"
    for t in (10, 20):
        chain.add("base", "arm", t * MS, pose(t))
        chain.add("arm", "tool", t * MS, pose(100))
    samples = chain.samples()
    assert [(s.stamp, s.probe_to_world[0, 3]) for s in samples] == [(10 * MS, 1115.0), (20 * MS, 1125.0)]
    assert chain.missing() == "" and chain.samples() == []


def test_edges_of_two_publishers_wait_for_each_other():
    chain = tree()
    for t in (0, 10, 20):
        chain.add("base", "arm", t * MS, pose(t))
    assert chain.samples() == []
    for t in (5, 15, 25):
        chain.add("arm", "tool", t * MS, pose(100 + t))
    got = {s.stamp // MS: s.probe_to_world[0, 3] for s in chain.samples()}
    assert got == {5: pytest.approx(1115), 10: pytest.approx(1125), 15: pytest.approx(1135), 20: pytest.approx(1145)}


def test_other_publishers_cannot_hide_a_gap():
    """Transforms that are not of the chain come all the time; the chain's own silence must stay a gap."""
    chain, matcher = tree(), FrameMatcher(PoseGates())
    for t in (0, 10, 1000, 1010):
        for other in range(t, t + 10):
            chain.add("world", "camera", other * MS, pose(other))
        chain.add("base", "arm", t * MS, pose())
        chain.add("arm", "tool", t * MS, pose())
        for sample in chain.samples():
            matcher.add_pose(sample)
    assert matcher.poses.at(500 * MS).reason == "pose_gap" and matcher.poses.at(5 * MS).reason == "ok"
    assert not chain.wants("camera") and chain.wants("/arm")


def test_a_frozen_edge_makes_no_samples_when_it_comes_back_late():
    chain = tree()
    chain.add("arm", "tool", 0, pose(0))
    for t in range(0, 500, 10):
        chain.add("base", "arm", t * MS, pose(t))
        chain.samples()
    chain.add("arm", "tool", 500 * MS, pose(9))
    assert [s.stamp for s in chain.samples()] == []


def test_a_static_chain_is_no_tracker():
    chain = FrameTree("world", "us_probe", PoseGates())
    chain.set_fixed("world", "us_probe", pose(3))
    assert chain.fixed_pose()[0, 3] == 3 and "static" in chain.missing()


# -- frames and poses together ------------------------------------------------------------------------------------

def frame(t, sequence=0):
    return TimedFrame(round(t * MS), sequence, IMAGE)


def words(decisions):
    return [d.reason if isinstance(d, RejectedFrame) else "used" for d in decisions]


def test_a_frame_waits_for_its_later_pose():
    matcher = FrameMatcher(PoseGates())
    matcher.add_pose(PoseSample(0, pose(0)))
    assert matcher.add_frame(frame(5)) == (False, []) and matcher.waiting == 1
    _, decisions = matcher.add_pose(PoseSample(10 * MS, pose(2)))
    assert isinstance(decisions[0], MatchedFrame) and decisions[0].probe_to_world[0, 3] == pytest.approx(1)


def test_the_delay_moves_the_moment():
    matcher = FrameMatcher(PoseGates(), delay=-0.003)
    for t in (0, 10):
        matcher.add_pose(PoseSample(t * MS, pose(t / 10)))
    _, decisions = matcher.add_frame(frame(8))
    assert decisions[0].probe_to_world[0, 3] == pytest.approx(0.5)


def test_reasons_to_reject():
    matcher = FrameMatcher(PoseGates(), capacity=2)
    assert words(matcher.add_frame(frame(1))[1]) == []
    assert words(matcher.add_frame(frame(1))[1]) == ["duplicate_stamp"]
    matcher.add_frame(frame(2))
    assert words(matcher.add_frame(frame(3))[1]) == ["queue_full"]
    assert words(matcher.add_frame(frame(900))[1]) == ["no_pose", "no_pose"]
    assert words(matcher.add_pose(PoseSample(950 * MS, pose()))[1]) == ["before_first_pose"]
    matcher.add_frame(frame(960))
    assert words(matcher.add_frame(frame(1600))[1]) == ["pose_stale"]
    assert words(matcher.give_up("no_later_pose")) == ["no_later_pose"]


def test_time_set_back_by_frames_or_by_poses():
    matcher = FrameMatcher(PoseGates())
    matcher.add_pose(PoseSample(5000 * MS, pose()))
    matcher.add_frame(frame(5005))
    jumped, decisions = matcher.add_frame(frame(10))
    assert jumped and words(decisions) == ["time_jump"] and len(matcher.poses) == 0
    matcher.add_pose(PoseSample(9000 * MS, pose()))
    insertion, decisions = matcher.add_pose(PoseSample(0, pose()))
    assert insertion == "jumped_back" and matcher.waiting == 0
