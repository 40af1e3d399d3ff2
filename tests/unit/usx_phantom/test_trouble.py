"""Trouble on purpose: read the bag back and count, hold it against the truth, and replay it through the matcher."""

from collections import Counter
from functools import partial
from itertools import combinations

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from usx_common.levels import LEVELS
from usx_common.meshes import read_mesh
from usx_common.transforms import invert, parse_matrix, rotation_angle
from usx_common.volumes import read_volume
from usx_compounding.frame_tree import FrameTree
from usx_compounding.matching import FrameMatcher, RejectedFrame, TimedFrame
from usx_compounding.pose_buffer import PoseGates
from usx_phantom import make_phantom, phantom_source, xray
from usx_phantom.body_frames import body_frames
from usx_phantom.make_phantom import main
from usx_phantom.phantom_scene import build_scene
from usx_phantom.spine import mean_spine
from usx_phantom.sweep_recording import START
from usx_phantom.trouble import BadTrouble, Trouble, parse_trouble
from usx_phantom.trouble_plan import LIFT_MM, TroublePlan, in_order, plan_trouble, receipts
from usx_phantom.xray_settings import XraySettings

STORE = get_typestore(Stores.ROS2_JAZZY)
FRAMES, DURATION = 30, 5.0
WORDS = ("drop=0.1,late=0.05,duplicate=0.07,reorder=0.05,pose_gap=0.6,lift_off=0.4,calibration=2:1,motion=4:3,"
         "time_offset=0.03")
OFFSET = 0.03


@pytest.fixture(scope="module")
def spine():
    return mean_spine(spacing=2.4)


@pytest.fixture(scope="module", autouse=True)
def coarse(spine):
    """The mean spine, voxels of 2 mm and pixels of 1.2 mm: a tenth of the work, and nothing here is about them."""
    detector = XraySettings(columns=256, rows=320, spacing=1.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantom_source, "sample_spine", lambda seed: spine)
        patch.setattr(make_phantom, "build_scene", partial(build_scene, spacing=2.0))
        patch.setattr(xray, "simulate_lateral", partial(xray.simulate_lateral, settings=detector))
        yield


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes an acquisition of the mean spine with given trouble."""
    root = tmp_path_factory.mktemp("trouble")

    def run(name, words):
        assert main(["--out", str(root / name), "--frames", str(FRAMES), "--duration", str(DURATION),
                     "--no-cbct", "--quiet", *(["--trouble", words] if words else [])]) == 0
        return root / name
    return run


@pytest.fixture(scope="module")
def folder(make):
    return make("bad", WORDS)


@pytest.fixture(scope="module")
def good(make):
    return make("good", "")


def read_bag(folder):
    """Topic -> list of (receive time, message) in the order of the bag."""
    found = {}
    with Reader(folder / "bag") as reader:
        for connection, time, data in reader.messages():
            found.setdefault(connection.topic, []).append((time, STORE.deserialize_cdr(data, connection.msgtype)))
    return found


@pytest.fixture(scope="module")
def bag(folder):
    return read_bag(folder)


@pytest.fixture(scope="module")
def fates(folder):
    return yaml.safe_load((folder / "truth" / "trouble.yaml").read_text())


def stamp(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def numbers(bag):
    """Frame numbers in the order of receipt."""
    return [round(((stamp(m) - START) * 1e-9 - OFFSET) * FRAMES / DURATION - 0.5) for _, m in bag["/us/image_raw"]]


def test_every_frame_is_there_as_often_as_told(bag, fates, folder):
    counts = Counter(numbers(bag))
    assert len(fates["frames_dropped"]) == 3 and len(fates["frames_duplicated"]) == 2
    assert len(fates["frames_late"]) == 2 and len(fates["frames_overtaken"]) == 2
    for frame in range(FRAMES):
        expected = 0 if frame in fates["frames_dropped"] else 2 if frame in fates["frames_duplicated"] else 1
        assert counts[frame] == expected, frame
    described = yaml.safe_load((folder / "acquisition.yaml").read_text())
    assert described["image_messages"] == sum(counts.values()) == 29
    assert described["settings"]["trouble"]["drop"] == 0.1 and described["frames"] == FRAMES


def test_late_and_overtaken_frames_arrive_when_told(bag, fates):
    order = numbers(bag)
    delays = {n: (time - stamp(m)) * 1e-9 for n, (time, m) in zip(order, bag["/us/image_raw"], strict=True)}
    for frame in fates["frames_late"]:
        assert delays[frame] == pytest.approx(0.315 - OFFSET)
    for frame in fates["frames_overtaken"]:
        assert order.index(frame) == order.index(frame + 1) + 1
    others = set(order) - set(fates["frames_late"]) - set(fates["frames_overtaken"]) - set(fates["frames_duplicated"])
    # A wrong clock moves stamps; it does not hold messages up.
    assert {round(delays[n], 6) for n in others} == {round(0.015 - OFFSET, 6)}
    times = [time for time, _ in bag["/us/image_raw"]]
    assert times == sorted(times)


def test_the_robot_is_silent_in_the_gap_alone(bag, fates):
    start, end = fates["pose_gap_s"]
    assert end - start == pytest.approx(0.6)
    stamps = np.array([stamp(m.transforms[0]) for _, m in bag["/tf"]])
    seconds = (stamps - START) * 1e-9
    assert not ((seconds >= start) & (seconds < end)).any()
    steps = np.diff(seconds)
    assert (steps > 0.011).sum() == 1 and steps.max() == pytest.approx(0.61, abs=0.011)
    assert [stamp(m) for _, m in bag["/joint_states"]] == list(stamps)


def matrix(transform):
    q, t = transform.rotation, transform.translation
    result = np.eye(4)
    result[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    result[:3, 3] = np.array([t.x, t.y, t.z]) * 1e3
    return result


def replay(bag):
    """Decisions of compounding's own matcher on a bag, and how many frames it was given."""
    gates = PoseGates()
    tree, matcher = FrameTree("world", "us_probe", gates), FrameMatcher(gates)
    decisions, received = [], 0
    for edge in bag["/tf_static"][0][1].transforms:
        tree.set_fixed(edge.header.frame_id, edge.child_frame_id, matrix(edge.transform))
    everything = sorted(((time, kind, m) for kind in ("/tf", "/us/image_raw") for time, m in bag[kind]),
                        key=lambda item: item[:2])
    for _, kind, message in everything:
        if kind == "/tf":
            for edge in message.transforms:
                tree.add(edge.header.frame_id, edge.child_frame_id, stamp(edge), matrix(edge.transform))
            for sample in tree.samples():
                decisions += matcher.add_pose(sample)[1]
        else:
            decisions += matcher.add_frame(TimedFrame(stamp(message), received, np.zeros((1, 1), np.uint8)))[1]
            received += 1
    return decisions + matcher.give_up("no_later_pose"), received


def test_received_is_used_plus_rejections(bag, fates):
    decisions, received = replay(bag)
    reasons = Counter(d.reason if isinstance(d, RejectedFrame) else "used" for d in decisions)
    start, end = fates["pose_gap_s"]
    order = numbers(bag)
    in_gap = sum(start - 0.01 < (n + 0.5) / FRAMES * DURATION + OFFSET < end for n in order)
    doubled = len(fates["frames_duplicated"])
    assert received == 29 == sum(reasons.values())
    assert reasons["duplicate_stamp"] == doubled
    assert reasons["pose_gap"] == pytest.approx(in_gap, abs=1) and reasons["pose_gap"] >= 2
    assert reasons["used"] == 29 - doubled - reasons["pose_gap"]


def test_a_good_recording_is_used_whole(good):
    decisions, received = replay(read_bag(good))
    assert received == FRAMES and not any(isinstance(d, RejectedFrame) for d in decisions)
    assert not (good / "truth" / "trouble.yaml").exists() and not (good / "truth" / "xray").exists()
    assert "trouble" not in (good / "acquisition.yaml").read_text()


def test_the_probe_leaves_the_skin_and_comes_back(bag, good, fates):
    start, end = fates["lifted_off_s"]
    before = {n: m.data.reshape(480, 640) for n, (_, m) in enumerate(read_bag(good)["/us/image_raw"])}
    for n, (_, message) in zip(numbers(bag), bag["/us/image_raw"], strict=True):
        time = (n + 0.5) / FRAMES * DURATION
        pixels = message.data.reshape(480, 640)
        if start + 0.6 < time < end - 0.6:
            assert pixels[100:].mean() < 0.3 * before[n][100:].mean()
        elif not start <= time <= end:
            assert abs(pixels[100:].mean() - before[n][100:].mean()) < 5.0
    plan = TroublePlan(lifted=(1.0, 3.0))
    assert plan.lift(0.9) == plan.lift(3.1) == 0.0 and plan.lift(2.0) == LIFT_MM
    assert 0.0 < plan.lift(1.2) < plan.lift(1.4) < LIFT_MM


def test_believed_calibration_is_off_as_stated_and_the_truth_is_not(folder, good):
    believed = parse_matrix(yaml.safe_load((folder / "params.yaml").read_text())["/**"]["ros__parameters"]
                            ["image_to_probe"])
    true = parse_matrix(yaml.safe_load((folder / "truth" / "transforms.yaml").read_text())["image_to_probe"])
    right = parse_matrix(yaml.safe_load((good / "params.yaml").read_text())["/**"]["ros__parameters"]
                         ["image_to_probe"])
    assert np.array_equal(true, right)
    error = believed @ invert(true)
    assert np.degrees(rotation_angle(error)) == pytest.approx(1.0, abs=1e-6)
    pivot = np.array([0.0, 0.0, 60.0, 1.0])
    assert np.linalg.norm((error @ pivot - pivot)[:3]) == pytest.approx(2.0, abs=1e-6)


def test_the_patient_moved_before_the_xray(folder, good):
    words = yaml.safe_load((folder / "truth" / "xray" / "motion.yaml").read_text())
    motions = {level: parse_matrix(words["sweep_to_xray"][level]) for level in LEVELS}
    relative = invert(motions["L5"]) @ motions["L1"]
    assert np.degrees(rotation_angle(relative)) == pytest.approx(4.0, abs=0.2)
    for level in LEVELS:
        swept, imaged = (read_mesh(folder / "truth" / part / f"{level}.ply") for part in (".", "xray"))
        assert np.allclose(swept.transformed(motions[level]).vertices, imaged.vertices, atol=1e-3)
        assert np.allclose(swept.vertices, read_mesh(good / "truth" / f"{level}.ply").vertices, atol=1e-6)
    origins = {level: frame[:, 3] for level, frame in body_frames(
        {level: read_mesh(folder / "truth" / f"{level}.ply") for level in LEVELS}).items()}
    shift = np.mean([(motions[level] @ origin - origin)[:3] for level, origin in origins.items()], axis=0)
    assert np.linalg.norm(shift) == pytest.approx(3.0, abs=1e-3)
    labels = read_volume(folder / "truth" / "xray" / "labelmap.nrrd")
    z, y, x = np.nonzero(labels.values == 22)
    middle = np.array([x.mean(), y.mean(), z.mean()]) * labels.grid.spacing + labels.grid.origin
    inside = read_mesh(folder / "truth" / "xray" / "L3.ply").vertices
    assert (middle > inside.min(0)).all() and (middle < inside.max(0)).all()
    assert (folder / "xray" / "lateral.dcm").read_bytes() != (good / "xray" / "lateral.dcm").read_bytes()


def test_plans_are_repeatable_disjoint_and_independent():
    times = (np.arange(300) + 0.5) / 30.0
    trouble = parse_trouble("drop=0.1,duplicate=0.1,late=0.1,reorder=0.1")
    plan = plan_trouble(trouble, times, 10.0, 3)
    assert plan == plan_trouble(trouble, times, 10.0, 3) != plan_trouble(trouble, times, 10.0, 4)
    fates = [*plan.dropped, *plan.duplicated, *plan.late, *plan.overtaken, *(n + 1 for n in plan.overtaken)]
    assert len(fates) == len(set(fates)) == 150
    assert plan_trouble(parse_trouble("drop=0.001"), times, 10.0, 3).messages(300) == 299


def test_one_trouble_moves_another_only_where_both_want_the_same_frame():
    times = (np.arange(300) + 0.5) / 30.0

    def fates(words):
        plan = plan_trouble(parse_trouble(words), times, 10.0, 3)
        return {"reorder": {*plan.overtaken, *(n + 1 for n in plan.overtaken)}, "late": {*plan.late},
                "duplicate": {*plan.duplicated}, "drop": {*plan.dropped}}, plan

    names = ("reorder", "late", "duplicate", "drop")
    alone = {name: fates(f"{name}=0.1")[0][name] for name in names}
    for first, second in combinations(names, 2):
        both = fates(f"{second}=0.1,{first}=0.2,pose_gap=1,calibration=3")[0]
        assert alone[first] <= both[first]  # more of the same adds frames
        assert alone[second] - both[second] == alone[second] & both[first]
        assert len(both[second]) == len(alone[second])
    gap = fates("pose_gap=1")[1].pose_gap
    assert fates("pose_gap=1,drop=0.1,late=0.3,lift_off=0.3")[1].pose_gap == gap
    # Streams differ: frames would else be the same, taken or not.
    assert len({tuple(sorted(frames)) for frames in alone.values()}) == 4


def test_messages_come_in_the_order_of_receipt():
    rng = np.random.default_rng(0)
    stamps = [int(i * 33e6) for i in range(200)]
    plan = plan_trouble(parse_trouble("drop=0.2,duplicate=0.2,late=0.1,reorder=0.1"), rng.random(200), 6.6, 1)
    received = receipts(plan, stamps, 15_000_000)
    out = list(in_order(received, (str(i).encode() for i in range(200))))
    times = [time for time, _, _ in out]
    assert times == sorted(times) and len(out) == plan.messages(200)
    assert all(data == str(number).encode() for _, number, data in out)
    plain = list(in_order(receipts(TroublePlan(), stamps, 15), (b"x" for _ in stamps)))
    assert [n for _, n, _ in plain] == list(range(200))


def test_words_become_settings():
    assert parse_trouble("") == Trouble() and not Trouble().any
    assert parse_trouble(" drop=0.1 , calibration=2:1, motion=3") == Trouble(
        drop=0.1, calibration=2.0, calibration_turn=1.0, motion=3.0)
    assert parse_trouble("time_offset=-0.1").as_dict() == {"time_offset": -0.1}


@pytest.mark.parametrize(("words", "message"), [
    ("dorp=0.1", "'dorp' is unknown; known are drop, duplicate"), ("drop", "write drop=NUMBER"),
    ("drop=a", "'a' is no number"), ("drop=0.1,drop=0.2", "drop twice"), ("drop=1.5", "drop = 1.5: must be 0 to 0.9"),
    ("drop=-0.1", "drop = -0.1"), ("drop=nan", "drop = nan"), ("drop=0.1:2", "write drop=NUMBER"),
    ("calibration=1:2:3", r"NUMBER\[:NUMBER\]"), ("calibration=inf", "calibration = inf"),
    ("motion=90", "motion = 90 degrees"), ("pose_gap=60", "pose_gap = 60 s"),
    ("drop=0.5,late=0.5", "leave 10 % alone"), ("calibration_turn=1", "'calibration_turn' is unknown"),
])
def test_absurd_trouble_is_refused(words, message):
    with pytest.raises(BadTrouble, match=message):
        parse_trouble(words)


@pytest.mark.parametrize(("words", "message"), [
    ("pose_gap=1.8", "at most 80 % of a sweep"), ("lift_off=0.1", "to go up and down"),
    ("reorder=0.4,drop=0.1", "a sweep of 2 frames has no room")])
def test_trouble_that_a_sweep_has_no_room_for(tmp_path, capsys, words, message):
    assert main(["--out", str(tmp_path / "x"), "--frames", "2", "--duration", "2", "--quiet", "--trouble", words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "x").exists()
