"""The raw transport: configuration, endpoints, graph, and what happens when peers stop, die or come late."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator

import pytest

from usx_runtime import messages
from usx_runtime.dds import DomainError, Participant, config
from usx_runtime.messages import UnknownType
from usx_runtime.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

STRING = messages.get_message("std_msgs/msg/String")
TYPE = "std_msgs/msg/String"
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture
def participant() -> Iterator[Participant]:
    with Participant() as made:
        yield made


def text(value: str) -> bytes:
    return messages.serialize(STRING(data=value))


def value(data: bytes) -> str:
    return messages.deserialize(data, STRING).data


def eventually(done: Callable[[], object], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(done())


def peer(script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    head = "from usx_runtime import messages\nfrom usx_runtime.dds import Participant\nimport sys, time\n" \
           "from usx_runtime.qos import *\nT = 'std_msgs/msg/String'\nS = messages.get_message(T)\n" \
           "LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)\n"
    return subprocess.Popen([sys.executable, "-c", head + script, *arguments], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, **environment})


# configuration


@pytest.mark.parametrize("text", ["-1", "233", "1.5", "x", "99999999999"])
def test_a_domain_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(DomainError, match=f"ROS_DOMAIN_ID = {text}: must be an integer between 0 and 232"):
        config.domain_id({"ROS_DOMAIN_ID": text})


def test_the_domain_comes_from_the_environment() -> None:
    assert [config.domain_id(env) for env in ({}, {"ROS_DOMAIN_ID": ""}, {"ROS_DOMAIN_ID": "42"})] == [0, 0, 42]


@pytest.mark.parametrize(("environment", "found", "absent"), [
    ({}, ["127.0.0.1", "<AllowMulticast>false", "auto"], ["Tag"]),
    ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, ["65500B"], ["127.0.0.1", "AllowMulticast"]),
    ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "ROS_STATIC_PEERS": "10.0.0.2;robot"},
     ['"10.0.0.2"', '"robot"', "auto"], ["127.0.0.1", "AllowMulticast"]),
    ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "ROS_LOCALHOST_ONLY": "1"}, ["127.0.0.1"], []),
    ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, ["Tag", "<AllowMulticast>false"], ["Peer "]),
])
def test_the_discovery_range_becomes_a_configuration(
    environment: dict[str, str], found: list[str], absent: list[str],
) -> None:
    text = config.cyclone_config(environment)
    ElementTree.fromstring(text)
    assert all(part in text for part in found) and not any(part in text for part in absent)


@pytest.mark.parametrize(("domain", "last"), [(0, 99), (100, 99), (231, 99), (232, 62)])
def test_every_domain_stays_within_the_ports(domain: int, last: int) -> None:
    assert f"<MaxAutoParticipantIndex>{last}<" in config.cyclone_config({}, domain)
    assert 7400 + 250 * domain + 11 + 2 * last <= 65535


def test_the_users_configuration_comes_last() -> None:
    assert config.cyclone_config({"CYCLONEDDS_URI": "file:///my.xml"}).endswith(",file:///my.xml")
    with pytest.raises(DomainError, match="EVERYWHERE"):
        config.cyclone_config({"ROS_AUTOMATIC_DISCOVERY_RANGE": "everywhere"})


def test_a_domain_without_a_free_port_is_told() -> None:
    domain = random.SystemRandom().randint(201, 220)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 7400 + 250 * domain + 10))
        only_one = "<MaxAutoParticipantIndex>0</MaxAutoParticipantIndex>"
        uri = f"<CycloneDDS><Domain><Discovery>{only_one}</Discovery></Domain></CycloneDDS>"
        child = peer("Participant()", ROS_DOMAIN_ID=str(domain), CYCLONEDDS_URI=uri)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == 1
    assert f"DomainError: cannot join DDS domain {domain}: no free port" in errors


def test_a_broken_configuration_is_told() -> None:
    child = peer("Participant()", CYCLONEDDS_URI="<CycloneDDS><Domain><Nonsense/></Domain></CycloneDDS>")
    assert "DomainError" in child.communicate(timeout=30)[1]


# endpoints


def test_bytes_arrive_as_they_were_written(participant: Participant) -> None:
    reader = participant.create_reader("/t", TYPE, QoSProfile(depth=10))
    writer = participant.create_writer("/t", TYPE, QoSProfile(depth=10))
    assert eventually(lambda: writer.matched() == 1 == reader.matched())
    assert not participant.wait([reader], 0.01)
    writer.write(text("abc"), stamp_ns=123)  # 12 bytes: a multiple of four
    assert participant.wait([reader], 10.0)
    (sample,) = reader.take(10)
    assert (sample.data, sample.source_ns) == (text("abc"), 123)
    writer.write(bytearray(text("a")))
    assert participant.wait([reader], 10.0)
    assert value(reader.take(1)[0].data) == "a"
    assert writer.wait_for_acknowledgements(10.0)
    writer.close()
    with pytest.raises(RuntimeError, match="closed"):
        writer.write(text("a"))
    assert eventually(lambda: reader.matched() == 0)


def test_unknown_types_and_unsupported_quality_are_refused(participant: Participant) -> None:
    with pytest.raises(UnknownType, match="no_msgs/msg/No"):
        participant.create_writer("/t", "no_msgs/msg/No", LATCHED)
    with pytest.raises(NotImplementedError, match="KEEP_ALL"):
        participant.create_writer("/t", TYPE, QoSProfile(history=HistoryPolicy.KEEP_ALL))
    with pytest.raises(NotImplementedError, match="MANUAL_BY_TOPIC"):
        participant.create_reader("/t", TYPE, QoSProfile(depth=1, liveliness=LivelinessPolicy.MANUAL_BY_TOPIC))


def test_the_graph_knows_owner_type_hash_and_quality(participant: Participant) -> None:
    with Participant() as other:
        other.add_node("camera", "/ns")
        other.create_writer("/image", "sensor_msgs/msg/Image", QoSProfile(
            depth=5, reliability=ReliabilityPolicy.BEST_EFFORT), ("camera", "/ns"))
        graph = participant.graph
        assert eventually(lambda: [e.node_name for e in graph.writers("/image")] == ["camera"])
        (end,) = graph.writers("/image")
        assert (end.type_name, end.node_namespace) == ("sensor_msgs/msg/Image", "/ns")
        assert end.type_hash.startswith("RIHS01_d31d41a9")  # published for Jazzy's Image
        assert end.qos.reliability == ReliabilityPolicy.BEST_EFFORT
        assert graph.topics() == {"/image": ["sensor_msgs/msg/Image"]}
        assert not graph.readers("/image")
    assert eventually(lambda: not graph.topics() and not graph.nodes())


# peers


def test_two_processes_exchange_images_at_100_hz(participant: Participant) -> None:
    """10 s of 640x480 images: what is counted and what is missing by sequence number add up to what was sent."""
    child = peer("""
from usx_runtime.cdr import HEADER
import struct
with Participant() as p:
    r = p.create_reader("/image", "sensor_msgs/msg/Image", QoSProfile(depth=50))
    count, last, lost = 0, -1, 0
    print("ready", flush=True)
    while last < 999:
        assert p.wait([r], 15.0), "nothing came"
        for s in r.take(50):
            m = messages.deserialize(s.data, messages.get_message("sensor_msgs/msg/Image"))
            n = m.header.stamp.sec
            assert len(m.data) == 307200 and m.data[n] == 255 and m.data[n + 1] == 0
            lost += n - last - 1
            count, last = count + 1, n
    print(count, lost)
""")
    writer = participant.create_writer("/image", "sensor_msgs/msg/Image", QoSProfile(depth=50))
    image = messages.get_message("sensor_msgs/msg/Image")(height=480, width=640, step=640, encoding="mono8")
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    assert eventually(lambda: writer.matched() == 1)
    start, pixels = time.monotonic(), bytearray(307200)
    for number in range(1000):
        pixels[number], pixels[number - 1] = 255, 0
        image.header.stamp.sec, image.data = number, messages.get_message("sensor_msgs/msg/Image")(
            data=bytes(pixels)).data
        writer.write(messages.serialize(image))
        time.sleep(max(0.0, start + (number + 1) * 0.01 - time.monotonic()))
    output, errors = child.communicate(timeout=60)
    assert child.returncode == 0, errors
    count, lost = map(int, output.split())
    assert count + lost == 1000
    assert lost <= 50  # keep-last overwrites while a busy machine stalls


def test_a_late_process_gets_the_latched_message(participant: Participant) -> None:
    writer = participant.create_writer("/latched", TYPE, LATCHED)
    for word in ("first", "second", "last"):
        writer.write(text(word))
    child = peer("""
with Participant() as p:
    r = p.create_reader("/latched", T, LATCHED)
    assert p.wait([r], 15.0)
    time.sleep(0.3)
    print([messages.deserialize(s.data, S).data for s in r.take(10)])
""")
    output, errors = child.communicate(timeout=60)
    assert output == "['last']\n", errors


def test_a_killed_peer_leaves_and_a_new_one_is_served(participant: Participant) -> None:
    script = """
with Participant() as p:
    p.add_node("mortal")
    r = p.create_reader("/t", T, QoSProfile(depth=10), ("mortal", "/"))
    print("ready", flush=True)
    p.wait([r], 30.0)
    print(messages.deserialize(r.take(1)[0].data, S).data, flush=True)
    p.wait([r], 30.0)
"""
    quick = ("<CycloneDDS><Domain><Discovery><LeaseDuration>2s</LeaseDuration></Discovery></Domain></CycloneDDS>")
    writer = participant.create_writer("/t", TYPE, QoSProfile(depth=10))
    for word in ("one", "two"):
        child = peer(script, CYCLONEDDS_URI=quick)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        assert eventually(lambda: writer.matched() == 1)
        assert eventually(lambda: ("mortal", "/") in participant.graph.nodes())
        writer.write(text(word))
        assert child.stdout.readline() == f"{word}\n"
        child.send_signal(signal.SIGKILL)
        child.communicate()
        writer.write(text("into the void"))
        assert eventually(lambda: writer.matched() == 0 and not participant.graph.nodes(), 20.0)


def test_a_stopped_reader_does_not_block_the_writer(participant: Participant) -> None:
    child = peer("""
with Participant() as p:
    r = p.create_reader("/image", "sensor_msgs/msg/Image", QoSProfile(depth=10))
    print("ready", flush=True)
    time.sleep(60)
""")
    try:
        writer = participant.create_writer("/image", "sensor_msgs/msg/Image", QoSProfile(depth=10))
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        assert eventually(lambda: writer.matched() == 1)
        child.send_signal(signal.SIGSTOP)
        data = messages.serialize(messages.get_message("sensor_msgs/msg/Image")(data=bytes(307200)))
        start = time.monotonic()
        for _ in range(100):
            writer.write(data)
        assert time.monotonic() - start < 5.0  # one blocking write alone would take that long
    finally:
        child.kill()
        child.communicate()


def test_nothing_is_left_behind(participant: Participant) -> None:
    def resources() -> tuple[int, int]:
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    other_domain = (participant.domain_id + 1) % 200
    Participant(other_domain).close()
    before, shared = resources(), set(os.listdir("/dev/shm"))  # noqa: PTH208
    for _ in range(5):
        with Participant(other_domain) as made:
            made.add_node("brief")
            made.create_writer("/t", TYPE, LATCHED).write(text("x"))
            made.wait([made.create_reader("/t", TYPE, LATCHED)], 1.0)
    assert eventually(lambda: resources() == before)
    assert set(os.listdir("/dev/shm")) <= shared  # noqa: PTH208
