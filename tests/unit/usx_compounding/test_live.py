"""The life of sweeps: begin, update, end, commands; every frame accounted for."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usx_common.counters import StreamCounters
from usx_common.errors import UsxError
from usx_compounding.cells import CellKind
from usx_compounding.compounding import CompoundingSettings, make_engine
from usx_compounding.coverage import Coverage
from usx_compounding.live import LiveSweep
from usx_compounding.live_settings import LiveSettings
from usx_compounding.matching import TimedFrame
from usx_compounding.pose_buffer import PoseSample
from usx_compounding.region import Lattice
from usx_compounding.sweep import Sweep, SweepSettings

MS = 1_000_000
SHAPE = (60, 40)
CALIBRATION = np.array([[0.5, 0, 0, -10], [0, 0, 0.5, 0], [0, 0.5, 0, 0], [0, 0, 0, 1]], dtype=float)


class Seen:
    def __init__(self):
        self.bones, self.slices, self.coverages, self.clears = [], [], [], []

    def bone(self, points, stamp):
        self.bones.append((len(points.points), stamp))

    def slice(self, points, stamp):
        self.slices.append((len(points.points), stamp))

    def coverage(self, coverage, stamp):
        self.coverages.append((len(coverage), stamp))

    def cleared(self, stamp):
        self.clears.append((len(self.bones), stamp))


class Rig:
    def __init__(self, calibrated=True, limit=2**28, **changes):
        sweep = SweepSettings(CALIBRATION, Lattice(np.eye(4), 0.5),
                              CompoundingSettings(CellKind("nearest", "mean"), memory_limit_bytes=limit))
        self.seen, self.saved = Seen(), []
        self.frames, self.poses = StreamCounters("frames"), StreamCounters("poses")
        defaults = {"idle_timeout": 0.15, "update_period": 0.05, "slice_period": 0.0, "facts_period": 0.0}
        settings = LiveSettings(sweep if calibrated else None, **(defaults | changes))
        self.live = LiveSweep(settings, make_engine("numba", 1), self.seen,
                              lambda sweep, number: self.save(sweep, number), self.frames, self.poses)
        self.number = 0

    def save(self, sweep, number):
        self.saved.append((sweep.frames, number))
        return "saved"

    def frame(self, t, shape=SHAPE):
        self.number += 1
        self.frames.received()
        image = np.full(shape, 40, dtype=np.uint8)
        if shape[0] > 30:
            image[20:23], image[23:] = 230, 2
        self.live.offer_frame(TimedFrame(round(t * MS), self.number, image))

    def pose(self, t, y=None):
        self.poses.received()
        pose = np.eye(4)
        pose[1, 3] = 0.05 * t if y is None else y
        self.live.offer_pose(PoseSample(round(t * MS), pose))

    def sweep(self, first=0, count=20, step=10):
        for t in range(first, first + count * step, step):
            self.pose(t)
            self.frame(t)
        self.live.process()

    def call(self, command):
        answer = []
        thread = threading.Thread(target=lambda: answer.append(self.live.call(command, lambda: None, 5.0)))
        thread.start()
        while thread.is_alive():
            self.live.process()
            thread.join(0.01)
        return answer[0]

    def idle(self):
        time.sleep(self.live.settings.idle_timeout + 0.02)
        self.live.process()

    def account(self):
        account = self.frames.snapshot()
        assert account.received == account.used + sum(account.rejected.values()) + account.pending
        return account


def test_a_sweep_begins_updates_and_ends_by_itself():
    rig = Rig()
    rig.sweep()
    assert rig.live.state == "sweeping" and rig.account().used == 20
    rig.idle()
    assert rig.live.state == "ended"
    points, stamp = rig.seen.bones[-1]
    assert stamp == 190 * MS and points > 200
    assert rig.seen.coverages[-1] == (20, 190 * MS) and rig.seen.slices[-1][1] == 190 * MS
    published = len(rig.seen.bones)
    rig.idle()
    assert len(rig.seen.bones) == published  # nothing new, nothing said
    rig.sweep(first=1000)
    assert rig.live.number == 2 and rig.live.facts()["frames"] == 20


def test_a_frame_left_without_a_later_pose():
    rig = Rig()
    rig.pose(0)
    rig.frame(5)
    rig.live.process()
    assert rig.account().pending == 1
    rig.idle()
    assert rig.account().rejected == {"no_later_pose": 1}


def test_without_calibration_every_frame_is_rejected_and_counted():
    rig = Rig(calibrated=False)
    rig.sweep(count=3)
    assert rig.account().rejected == {"no_calibration": 3} and rig.live.number == 0


def test_a_change_of_image_size_is_rejected():
    rig = Rig()
    rig.sweep(count=5)
    rig.pose(60)
    rig.frame(60, (30, 30))
    rig.live.process()
    assert rig.account().rejected == {"size_changed": 1}


def test_the_memory_bound_rejects_frames_and_says_why():
    rig = Rig(limit=3_000_000)
    rig.sweep(count=3)
    rig.pose(30, y=1.5)
    rig.pose(10_000, y=400.0)
    rig.frame(10_000)
    rig.live.process()
    assert rig.account().rejected == {"memory_limit": 1} and rig.account().used == 3
    assert "a spacing of" in rig.live.trouble
    rig.pose(10_010, y=1.0)
    rig.frame(10_010)
    rig.live.process()
    assert rig.account().used in (3, 4)


def test_commands():
    rig = Rig()
    assert rig.call("save") == (False, "there is no volume to save: no frame has been compounded yet")
    rig.sweep(count=4)
    assert rig.call("start") == (False, "sweep 1 is under way; stop it first")
    assert rig.call("save") == (True, "saved") and rig.saved == [(4, 1)]
    assert rig.call("stop")[0] and rig.live.state == "stopped"
    rig.sweep(first=100, count=3)
    assert rig.account().rejected == {"stopped": 3}
    assert rig.call("start")[0]
    rig.sweep(first=200, count=3)
    assert rig.live.number == 2 and rig.account().used == 7
    assert rig.call("reset")[0] and not rig.call("save")[0]


def test_a_failed_save_is_told_and_nothing_is_lost():
    rig = Rig()
    rig.save = lambda sweep, number: (_ for _ in ()).throw(UsxError("the disk is full"))
    rig.sweep(count=4)
    assert rig.call("save") == (False, "the disk is full")
    rig.save = lambda sweep, number: 1 / 0
    assert rig.call("save")[0] is False
    del rig.save
    assert rig.call("save") == (True, "saved")


def test_frames_are_compounded_while_a_save_runs_and_it_writes_what_was_there():
    rig = Rig()
    go_on, written, answers = threading.Event(), [], []

    def save(sweep, number):
        assert go_on.wait(10.0)
        written.append((sweep.frames, sweep.grey_volume(), sweep.bone_volume()))
        return "saved"

    rig.save = save
    rig.sweep(count=5)
    before = rig.live._sweep.grey_volume()
    saving = threading.Thread(target=lambda: answers.append(rig.live.call("save", lambda: None, 20.0)))
    saving.start()
    while not rig.live._inbox:
        time.sleep(0.001)
    rig.live.process()
    rig.sweep(first=50, count=5)
    assert rig.account().used == 10 and not answers
    assert rig.call("save") == (False, "a save is under way; ask again when it is finished")
    go_on.set()
    saving.join(10.0)
    assert answers == [(True, "saved")]
    frames, grey, bone = written[0]
    assert frames == 5 and np.array_equal(grey.values, before.values) and grey.values.shape == bone.values.shape
    assert rig.live._sweep.grey_volume().values.shape != before.values.shape
    assert rig.call("save") == (True, "saved")


def test_what_waits_for_an_answer_when_the_node_ends_gets_one():
    rig = Rig()
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(rig.live.call("stop", lambda: None, 20.0)))
    waiting.start()
    while not rig.live._inbox:
        time.sleep(0.001)
    rig.live.close()
    waiting.join(10.0)
    assert answers == [(False, "the node is ending")] and rig.live.call("stop", lambda: None, 1.0) == answers[0]
    rig.frame(1)
    rig.pose(1)
    assert rig.account().rejected == {"shutdown": 1} and rig.poses.snapshot().rejected == {"shutdown": 1}


@pytest.mark.parametrize("error", [MemoryError("growing"), RuntimeError("engine")])
def test_a_frame_that_fails_unexpectedly_costs_that_frame_only(error, monkeypatch):
    rig = Rig()
    rig.sweep(count=2)
    add, calls = Sweep.add, []

    def fail_once(sweep, matched):
        calls.append(matched)
        if len(calls) == 1:
            raise error
        add(sweep, matched)

    monkeypatch.setattr(Sweep, "add", fail_once)
    rig.frame(20)
    rig.frame(25)
    rig.frame(30)
    rig.pose(20)
    told = []
    monkeypatch.setattr(rig.live._frames, "rejected", lambda reason, n=1: told.append((reason, rig.live.trouble)))
    rig.pose(30)
    rig.live.process()
    assert [reason for reason, _ in told] == ["internal_error"] and type(error).__name__ in told[0][1]
    assert rig.frames.snapshot().used == 4


@pytest.mark.parametrize("output", ["bone", "slice", "coverage"])
def test_an_output_that_fails_costs_no_frame(output):
    rig = Rig(update_period=0.0)
    setattr(rig.seen, output, lambda *_: 1 / 0)
    for t in (0, 10, 20):
        rig.frame(t)
    for t in (0, 10, 20):
        rig.pose(t)
    rig.live.process()
    assert rig.account().used == 3 and rig.account().pending == 0
    assert f"us/{output} could not be published" in rig.live.trouble


def test_what_an_earlier_sweep_showed_is_taken_back():
    rig = Rig()
    rig.sweep(count=5)
    rig.idle()
    assert rig.seen.clears == []  # nothing was there before the first
    bones = len(rig.seen.bones)
    rig.sweep(first=1000, count=5)
    rig.idle()
    assert rig.seen.clears == [(bones, 1000 * MS)] and rig.seen.bones[-1][1] == 1040 * MS
    assert rig.call("reset")[0]
    assert rig.seen.clears[1:] == [(len(rig.seen.bones), 1040 * MS)]
    assert rig.call("reset")[0] and len(rig.seen.clears) == 2


def test_figures_are_noted_by_the_worker_once_per_period():
    rig = Rig(facts_period=0.2)
    rig.sweep(count=5)
    early = rig.live.facts()
    rig.live._sweep.coverage.summary = rig.live._matcher.poses.still_since = None  # for the worker only
    assert rig.live.facts() is early and rig.live.still_seconds() == 0.0
    del rig.live._sweep.coverage.summary, rig.live._matcher.poses.still_since
    rig.live.process()
    assert rig.live.facts() is early
    time.sleep(0.22)
    rig.live.process()
    assert rig.live.facts()["frames"] == 5


def test_time_set_back_begins_a_new_sweep():
    rig = Rig()
    rig.sweep(first=5000, count=5)
    rig.sweep(first=0, count=5)
    assert rig.live.number == 2 and rig.account().used == 10
    assert rig.seen.bones[0][1] == 5040 * MS  # what the first had is not lost


def test_a_flood_is_bounded_and_accounted_for():
    rig = Rig(inbox=8)
    for t in range(20):
        rig.frame(t)
    assert rig.account().rejected == {"busy": 12}
    rig.live.process()
    rig.live.close()
    assert rig.account().pending == 0 and rig.account().rejected["shutdown"] == 8


def test_a_flood_of_large_frames_is_bounded_by_their_bytes():
    rig = Rig(inbox_bytes=1)
    rig.frame(0)  # one is taken whatever its size
    rig.frame(1)
    assert rig.account().rejected == {"busy": 1}
    rig.live.process()
    rig.frame(2)
    assert rig.account().rejected == {"busy": 1}


def test_a_frozen_tracker_is_noticed():
    rig = Rig()
    for t in range(0, 3000, 10):
        rig.pose(t, y=0.0)
    rig.live.process()
    assert rig.live.still_seconds() == pytest.approx(2.99)
    rig.pose(3000, y=0.1)
    rig.live.process()
    assert rig.live.still_seconds() == 0.0


def test_what_is_left_at_the_end_is_counted():
    rig = Rig()
    rig.frame(1)
    rig.pose(2)
    rig.live.close()
    assert rig.account().rejected == {"shutdown": 1} and rig.poses.snapshot().pending == 0


def test_frames_in_any_order_give_one_volume():
    results = []
    for order in (range(12), [3, 1, 2, 0, 7, 5, 6, 4, 11, 9, 10, 8]):
        rig = Rig()
        for t in range(0, 130, 10):
            rig.pose(t)
        for number in order:
            rig.frame(10 * number)
        rig.live.process()
        sweep = rig.live._sweep
        results.append((sweep.grey_volume().values, sweep.bone_points().points))
    assert np.array_equal(results[0][0], results[1][0]) and np.array_equal(results[0][1], results[1][1])


def test_gaps_show_in_the_coverage():
    coverage = Coverage(spacing=0.5)
    square = np.array([[0, 0, 0], [10, 0, 0], [10, 0, 10], [0, 0, 10], [0, 0, 0]], dtype=float)
    for stamp, y in ((2, 1.0), (1, 0.5), (3, 3.0), (4, 9.0)):
        coverage.add(stamp, square + [0, y, 0])
    lines = coverage.segments()
    assert {shade: len(segments) // 4 for shade, segments in lines.items()} == {"dense": 2, "sparse": 1, "gap": 1}
    summary = coverage.summary()
    assert (summary.frames, summary.length, summary.largest_gap) == (4, pytest.approx(8.5), pytest.approx(6.0))
    assert coverage.centre()[1] == 9.0


@settings(max_examples=60, deadline=None)
@given(frames=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 40)), max_size=25))
def test_the_figures_of_the_coverage_do_not_depend_on_the_order_of_arrival(frames):
    coverage = Coverage(spacing=0.5)
    for stamp, y in frames:
        coverage.add(stamp, np.array([[0, y, 0], [10, y, 0], [10, y, 10], [0, y, 0]], dtype=float))
    gaps = np.abs(np.diff([y for _, y in sorted(frames, key=lambda frame: frame[0])]))
    summary = coverage.summary()
    assert (summary.length, summary.largest_gap) == (pytest.approx(gaps.sum()), pytest.approx(gaps.max(initial=0)))


def test_a_summary_of_a_long_sweep_looks_at_no_outline(monkeypatch):
    coverage = Coverage(spacing=0.5)
    for stamp in range(50):
        coverage.add(stamp, np.zeros((5, 3)))
    monkeypatch.setattr(np, "diff", None)
    monkeypatch.setattr(np.linalg, "norm", None)
    assert coverage.summary().frames == 50
