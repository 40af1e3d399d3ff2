"""Recordings are played and recorded without touching a byte of their messages, and damaged ones are refused."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from usx_runtime import messages
from usx_runtime.bag.command import main as bag_command
from usx_runtime.bag.play import Player, PlayOptions
from usx_runtime.bag.quality import to_play, to_subscribe
from usx_runtime.bag.recording import open_recording
from usx_runtime.dds import Participant
from usx_runtime.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from usx_runtime.user_error import UserError

STORE = get_typestore(Stores.ROS2_JAZZY)
START = 1_700_000_000 * 10**9
INFINITE = QosTime(9223372036, 854775807)
IMAGES, RATE, IMAGE_BYTES = 45, 30, 640 * 480
ODD_TYPE = "odd_msgs/msg/Reading"


def offered(latched: bool, depth: int) -> list[Qos]:
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    policies = (QosHistory.KEEP_LAST, depth, QosReliability.RELIABLE, durability, INFINITE, INFINITE)
    return [Qos(*policies, QosLiveliness.AUTOMATIC, INFINITE, False)]


def stamp(time_ns: int) -> object:
    return STORE.types["builtin_interfaces/msg/Time"](*divmod(time_ns, 10**9))


def image(number: int, time_ns: int) -> bytes:
    header = STORE.types["std_msgs/msg/Header"](stamp(time_ns), "us_image")
    pixels = np.random.default_rng(number).integers(0, 255, IMAGE_BYTES, dtype=np.uint8)
    message = STORE.types["sensor_msgs/msg/Image"](header, 480, 640, "mono8", 0, 640, pixels)
    return bytes(STORE.serialize_cdr(message, message.__msgtype__))


def static_transform() -> bytes:
    t = STORE.types
    transform = t["geometry_msgs/msg/Transform"](
        t["geometry_msgs/msg/Vector3"](1.0, 2.0, 3.0), t["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    )
    header = t["std_msgs/msg/Header"](stamp(START), "world")
    stamped = t["geometry_msgs/msg/TransformStamped"](header, "base", transform)
    return bytes(STORE.serialize_cdr(t["tf2_msgs/msg/TFMessage"]([stamped]), "tf2_msgs/msg/TFMessage"))


@pytest.fixture(scope="module", autouse=True)
def own_domain() -> Iterator[None]:
    """A domain that no other test uses, even of a second run on this machine: here every topic counts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(215 + os.getpid() % 17))
        yield


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1.5 s: 45 images of 307 kB at 30 Hz, a latched transform, and a type that no ROS distribution has."""
    path = tmp_path_factory.mktemp("bags") / "bag"
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        transforms = writer.add_connection(
            "/tf_static", "tf2_msgs/msg/TFMessage", typestore=STORE, offered_qos_profiles=offered(True, 1)
        )
        images = writer.add_connection(
            "/us/image_raw", "sensor_msgs/msg/Image", typestore=STORE, offered_qos_profiles=offered(False, 5)
        )
        odd = writer.add_connection(
            "/odd", ODD_TYPE, msgdef="float64 value\nstring unit\n", rihs01="RIHS01_" + "0" * 64
        )
        writer.write(transforms, START, static_transform())
        for number in range(IMAGES):
            time_ns = START + number * 10**9 // RATE
            writer.write(images, time_ns, image(number, time_ns))
        writer.write(odd, START + 10**9, bytes.fromhex("00010000 000000000000f03f 03000000 6d6d00"))
    return path


def command(*words: object, **options: object) -> subprocess.Popen[str]:
    """`usx bag` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "usx_runtime", "bag", *map(str, words)],
        env={**os.environ, "USX_ROS": "embedded"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def finish(process: subprocess.Popen[str], number: int | None = None) -> str:
    if number is not None:
        process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output


class Listener:
    """Everything that arrives on some topics, taken by a thread: {topic: [(time written, CDR)]}."""

    def __init__(self, topics: dict[str, str], qos: QoSProfile) -> None:
        self.received: dict[str, list[tuple[int, bytes]]] = {topic: [] for topic in topics}
        self.participant = Participant()
        self.readers = {topic: self.participant.create_reader(topic, kind, qos) for topic, kind in topics.items()}
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self.stopping.is_set():
            self.participant.wait(list(self.readers.values()), 0.1)
            for topic, reader in self.readers.items():
                self.received[topic] += [(sample.source_ns, sample.data) for sample in reader.take(100)]

    def wait_for(self, topic: str, count: int) -> None:
        end = time.monotonic() + 60
        while len(self.received[topic]) < count:
            assert time.monotonic() < end, f"{len(self.received[topic])} of {count} messages on {topic}"
            time.sleep(0.01)

    def wait_for_backward_clock(self) -> None:
        end = time.monotonic() + 60
        while not any(b < a for a, b in itertools.pairwise(clock_seconds(data) for _, data in self.received["/clock"])):
            assert time.monotonic() < end, "the clock never went back"
            time.sleep(0.01)

    def close(self) -> None:
        self.stopping.set()
        self.thread.join()
        self.participant.close()


@pytest.fixture
def listen() -> Iterator:
    listeners: list[Listener] = []

    def start(latched: bool = False, **topics: str) -> Listener:
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        named = {"/" + topic.replace("__", "/"): kind for topic, kind in topics.items()}
        listeners.append(Listener(named, QoSProfile(depth=200, durability=durability)))
        return listeners[-1]

    yield start
    for listener in listeners:
        listener.close()


def contents(path: Path) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    with Reader(path) as reader:
        for connection, _, data in reader.messages():
            found.setdefault(connection.topic, []).append(bytes(data))
    return found


def clock_seconds(data: bytes) -> float:
    message = messages.deserialize(data, messages.get_message("rosgraph_msgs/msg/Clock"))
    return message.clock.sec + message.clock.nanosec * 1e-9


# ---- playing and recording


def test_what_is_played_is_recorded_byte_by_byte(bag: Path, tmp_path: Path) -> None:
    recorder = command("record", "-o", tmp_path / "copy", "/tf_static", "us/image_raw", "--topics", "/clock")
    assert recorder.stdout is not None and "recording" in recorder.stdout.readline()
    played = finish(command("play", bag, "--clock", "50"))
    recorded = finish(recorder, signal.SIGINT)
    assert f"played {IMAGES + 1 + (1 if '/odd' not in played else 0)} messages" in played
    assert "subscribed to topic /us/image_raw" in recorded
    original, copy = contents(bag), contents(tmp_path / "copy")
    assert copy["/us/image_raw"] == original["/us/image_raw"]
    assert copy["/tf_static"] == original["/tf_static"]
    clock = [clock_seconds(data) for data in copy["/clock"]]
    assert clock == sorted(clock) and clock[-1] >= START / 1e9 + (IMAGES - 1) / RATE
    metadata = yaml.safe_load((tmp_path / "copy" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert metadata["version"] == 9 and metadata["storage_identifier"] == "mcap"
    topics = {item["topic_metadata"]["name"]: item["topic_metadata"] for item in metadata["topics_with_message_count"]}
    assert topics["/tf_static"]["offered_qos_profiles"][0]["durability"] == "transient_local"
    assert topics["/us/image_raw"]["offered_qos_profiles"][0]["durability"] == "volatile"
    assert topics["/us/image_raw"]["type_description_hash"].startswith("RIHS01_d31d41a9a4c4bc8e")  # ROS 2's own
    with Reader(tmp_path / "copy") as reader:
        assert all(connection.msgdef.data for connection in reader.connections)


def test_messages_come_whole_and_in_order(bag: Path, listen) -> None:
    listener = listen(us__image_raw="sensor_msgs/msg/Image", clock="rosgraph_msgs/msg/Clock")
    finish(command("play", bag, "--clock", "20", "--rate", "2"))
    received = listener.received["/us/image_raw"]
    assert [data for _, data in received] == contents(bag)["/us/image_raw"]
    clock = [clock_seconds(data) for _, data in listener.received["/clock"]]
    assert clock == sorted(clock) and START / 1e9 <= clock[0] < clock[-1] < START / 1e9 + IMAGES / RATE + 1


class Sleeper:
    """A clock that only sleeping moves, by more than was asked for now and then, as on a busy machine."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.late = itertools.cycle((0.0, 0.0, 0.08))

    def wait(self, seconds: float) -> bool:
        self.now += seconds + next(self.late)
        return False

    def is_set(self) -> bool:
        return False

    def monotonic(self) -> float:
        return self.now


class Ledger:
    """In a participant's place: when each topic was written to."""

    def __init__(self, clock: Sleeper) -> None:
        self.clock, self.written = clock, {}

    def add_node(self, *_: str) -> None: ...

    def create_writer(self, topic: str, *_: object) -> Ledger.Writer:
        self.written[topic] = []
        return Ledger.Writer(self.written[topic], self.clock)

    class Writer:
        def __init__(self, times: list[float], clock: Sleeper) -> None:
            self.times, self.clock = times, clock

        def write(self, _: bytes) -> None:
            self.times.append(self.clock.now)

        def matched(self) -> int:
            return 1

        def wait_for_acknowledgements(self, _: float) -> bool:
            return True


@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0])
def test_no_message_is_early_and_a_late_one_delays_no_other(bag: Path, rate: float,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = Sleeper()
    monkeypatch.setattr("usx_runtime.bag.play.time.monotonic", sleeper.monotonic)
    ledger = Ledger(sleeper)
    with open_recording(str(bag)) as recording:
        Player(recording, ledger, PlayOptions(rate=rate), sleeper).run()
    times = np.array(ledger.written["/us/image_raw"])
    late = times - ledger.written["/tf_static"][0] - np.arange(IMAGES) / RATE / rate
    assert len(times) == IMAGES and late.min() >= -1e-6 and late.max() <= 0.08 + 1e-6


def test_a_part_of_a_bag_under_another_name(bag: Path, listen) -> None:
    image_type = "sensor_msgs/msg/Image"
    listener = listen(camera=image_type, us__image_raw=image_type, tf_static="tf2_msgs/msg/TFMessage")
    words = ("--topics", "/us/image_raw", "--remap", "us/image_raw:=/camera", "--start-offset", "1.0", "--rate", "5")
    output = finish(command("play", bag, *words))
    expected = contents(bag)["/us/image_raw"][RATE:]
    assert f"played {len(expected)} messages" in output
    assert [data for _, data in listener.received["/camera"]] == expected
    assert not listener.received["/us/image_raw"] and not listener.received["/tf_static"]


def test_a_type_is_known_from_the_bag_itself(bag: Path, listen) -> None:
    messages.register("float64 value\nstring unit\n", ODD_TYPE)
    listener = listen(odd=ODD_TYPE)
    finish(command("play", bag, "--topics", "/odd"))
    ((_, data),) = listener.received["/odd"]
    message = messages.deserialize(data, messages.get_message(ODD_TYPE))
    assert (message.value, message.unit) == (1.0, "mm")


def test_looping_begins_again_and_a_late_subscriber_gets_what_is_latched(bag: Path, listen) -> None:
    listener = listen(clock="rosgraph_msgs/msg/Clock", odd="std_msgs/msg/String")
    player = command("play", bag, "--loop", "--clock", "--rate", "3")
    listener.wait_for("/clock", 5)
    late = listen(latched=True, tf_static="tf2_msgs/msg/TFMessage")
    late.wait_for("/tf_static", 2)
    listener.wait_for_backward_clock()
    finish(player, signal.SIGINT)
    assert {data for _, data in late.received["/tf_static"]} == {static_transform()}


def test_recording_everything_and_ending_by_sigterm(listen, tmp_path: Path) -> None:
    with Participant() as participant:
        participant.add_node("talker")
        kind = "std_msgs/msg/String"
        early, hidden = (participant.create_writer(name, kind, QoSProfile(depth=10)) for name in ("/early", "/_hidden"))
        recorder = command("record", "-a", "-o", tmp_path / "all")
        assert recorder.stdout is not None
        while "/early" not in recorder.stdout.readline():
            pass
        late = participant.create_writer("/late", kind, QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT))
        while "/late" not in recorder.stdout.readline():
            pass
        for writer in (early, hidden, late):
            end = time.monotonic() + 30
            while writer is not hidden and not writer.matched() and time.monotonic() < end:
                time.sleep(0.01)
            writer.write(messages.serialize(messages.get_message(kind)(data="x")))
        early.wait_for_acknowledgements(10)
        time.sleep(0.5)  # best effort has nothing to wait for
        finish(recorder, signal.SIGTERM)
    with open_recording(str(tmp_path / "all")) as recording:
        assert {topic.name: topic.count for topic in recording.topics} == {"/early": 1, "/late": 1}
        qualities = {topic.name: topic.qos[0].reliability for topic in recording.topics}
        assert qualities["/late"] == ReliabilityPolicy.BEST_EFFORT


def test_info(bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bag_command(["info", str(bag)]) == 0
    output = capsys.readouterr().out
    for expected in (
        "Files:             bag.mcap\n",
        "Storage id:        mcap\n",
        f"Duration:          {(IMAGES - 1) * 10**9 // RATE / 1e9:.9f}s\n",
        "(1700000000.000000000)\n",
        f"Messages:          {IMAGES + 2}\n",
        f"Topic: /us/image_raw | Type: sensor_msgs/msg/Image | Count: {IMAGES} | Serialization Format: cdr\n",
    ):
        assert expected in output
    assert bag_command(["info", str(bag / "bag.mcap")]) == 0  # the storage file alone


# ---- quality of service


def profile(reliable: bool = True, latched: bool = False, depth: int = 1) -> QoSProfile:
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


@pytest.mark.parametrize(
    ("offers", "reliable", "latched"),
    [
        ([], True, False),
        ([profile()], True, False),
        ([profile(reliable=False)], False, False),
        ([profile(latched=True)], True, True),
        ([profile(), profile(reliable=False)], False, False),
        ([profile(latched=True), profile()], True, False),
    ],
)
def test_recorded_quality_of_service_is_offered_again(offers: list, reliable: bool, latched: bool) -> None:
    for chosen in (to_play(offers), to_subscribe(offers, 10)):
        assert (chosen.reliability == ReliabilityPolicy.RELIABLE) is reliable
        assert (chosen.durability == DurabilityPolicy.TRANSIENT_LOCAL) is latched


def test_a_latched_topic_keeps_what_its_publishers_kept_together() -> None:
    assert to_play([profile(latched=True, depth=1), profile(latched=True, depth=2)]).depth == 3


# ---- bad input


def copied(bag: Path, folder: Path) -> Path:
    target = folder / "bag"
    target.mkdir()
    for file in bag.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def edit(path: Path, before: str, after: str) -> None:
    text = (path / "metadata.yaml").read_text()
    assert before in text
    (path / "metadata.yaml").write_text(text.replace(before, after))


DAMAGES = {
    "no metadata": (lambda bag: (bag / "metadata.yaml").unlink(), "no metadata.yaml: its recording was not finished"),
    "empty folder": (lambda bag: [file.unlink() for file in bag.iterdir()], "neither metadata.yaml nor a storage file"),
    "serialization": (lambda bag: edit(bag, "serialization_format: cdr", "serialization_format: xml"), "'xml'"),
    "version": (lambda bag: edit(bag, "version: 9", "version: 99"), "version 99 not supported"),
    "storage": (lambda bag: edit(bag, "storage_identifier: mcap", "storage_identifier: tape"), "'tape' not supported"),
    "not yaml": (lambda bag: (bag / "metadata.yaml").write_text("{"), "Could not load YAML"),
    "empty yaml": (lambda bag: (bag / "metadata.yaml").write_text(""), "cannot be read"),
    "other yaml": (lambda bag: (bag / "metadata.yaml").write_text("a: 1"), "metadata key is missing"),
    "storage file missing": (lambda bag: (bag / "bag.mcap").unlink(), "database files are missing"),
    "storage file empty": (lambda bag: (bag / "bag.mcap").write_bytes(b""), "seems to be empty"),
    "storage file foreign": (lambda bag: (bag / "bag.mcap").write_bytes(b"x" * 1000), "magic is invalid"),
    "truncated": (lambda bag: os.truncate(bag / "bag.mcap", 1_000_000), "end magic is invalid"),
}


@pytest.mark.parametrize("verb", ["play", "info"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_recordings_are_refused(damage: str, verb: str, bag: Path, tmp_path: Path) -> None:
    break_it, message = DAMAGES[damage]
    path = copied(bag, tmp_path)
    break_it(path)
    with pytest.raises(UserError) as caught:
        bag_command([verb, str(path)])
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_damage_in_the_middle_is_told(bag: Path, tmp_path: Path) -> None:
    path = copied(bag, tmp_path)
    with (path / "bag.mcap").open("r+b") as file:
        file.seek(2_000_000)
        file.write(b"\xff" * 4_000_000)
    with pytest.raises(UserError, match="is damaged"), open_recording(str(path)) as recording:
        assert len(list(recording.messages({"/us/image_raw"}, 0))) < IMAGES


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("play",), "which bag"),
        (("play", "/no/such/bag"), "'/no/such/bag' does not exist"),
        (("play", "BAG", "--rate", "0"), "--rate 0.0: must be a positive number"),
        (("play", "BAG", "--rate", "nan"), "--rate nan"),
        (("play", "BAG", "--clock", "-1"), "--clock -1.0"),
        (("play", "BAG", "--delay", "-1"), "--delay -1.0: must be 0 or more"),
        (("play", "BAG", "--start-offset", "9"), "--start-offset 9.0: the bag lasts 1.467 s"),
        (("play", "BAG", "--remap", "a"), "--remap a: must be OLD:=NEW"),
        (("play", "BAG", "--topics", "/absent"), "no topic /absent; it has: /odd, /tf_static, /us/image_raw"),
        (("record",), "nothing to record"),
        (("record", "-e", "("), "--regex '('"),
        (("record", "-a", "-o", "BAG"), "exists already"),
        (("info", "/no/such/bag"), "does not exist"),
    ],
)
def test_options_that_make_no_sense(words: tuple, message: str, bag: Path) -> None:
    with pytest.raises(UserError) as caught:
        bag_command([str(bag) if word == "BAG" else word for word in words])
    assert message in str(caught.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage file is made a link to /dev/full as soon as its folder exists."""
    from rosbags.rosbag2 import storage_mcap

    from usx_runtime.bag.record import RecordOptions, record

    def open_full(self: object, path: Path, compression: object) -> None:
        (path / f"{path.name}.mcap").symlink_to("/dev/full")
        self.path = path / f"{path.name}.mcap"  # type: ignore[attr-defined]
        self.bio = self.path.open("wb", buffering=0)  # type: ignore[attr-defined]
        self.bio.write(b"x")  # type: ignore[attr-defined]

    monkeypatch.setattr(storage_mcap.McapWriter, "__init__", open_full)
    with pytest.raises(UserError, match=r"cannot write bag .*No space left on device"):
        record(RecordOptions(tmp_path / "full", all_topics=True))
