"""Topics are listed, shown and timed by the command line."""

from __future__ import annotations

import array
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import yaml

from usx_runtime import messages
from usx_runtime.dds import Participant
from usx_runtime.qos import DurabilityPolicy, QoSProfile
from usx_runtime.topic.text import message_to_text

IMAGE = "sensor_msgs/msg/Image"


def image(width: int = 20, height: int = 10) -> object:
    message = messages.get_message(IMAGE)(height=height, width=width, encoding="mono8", step=width)
    message.header.frame_id = "us_image"
    message.data = array.array("B", range(width * height))
    return message


def usx_topic(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "usx_runtime", "topic", *words],
        env={**os.environ, "USX_ROS": "embedded"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module", autouse=True)
def own_domain() -> Iterator[None]:
    """A domain that no other test uses, even of a second run on this machine: here every topic counts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(215 + os.getpid() % 17))
        yield


@pytest.fixture(scope="module")
def talker() -> Iterator[None]:
    """Publishes an image a hundredth of a second, and a latched text once."""
    stop = threading.Event()
    with Participant() as participant:
        participant.add_node("talker")
        images = participant.create_writer("/us/image_raw", IMAGE, QoSProfile(depth=10), ("talker", "/"))
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        state = participant.create_writer("/state", "std_msgs/msg/String", latched, ("talker", "/"))
        hidden = participant.create_writer("/_hidden", "std_msgs/msg/String", QoSProfile(depth=1))
        state.write(messages.serialize(messages.get_message("std_msgs/msg/String")(data="fertig: ä")))
        data = messages.serialize(image())

        def publish() -> None:
            while not stop.wait(0.01):
                images.write(data)

        thread = threading.Thread(target=publish)
        thread.start()
        yield
        stop.set()
        thread.join()
        hidden.close()


def test_list(talker: None) -> None:
    assert usx_topic("list").stdout.split() == ["/state", "/us/image_raw"]
    shown = usx_topic("list", "-t", "--include-hidden-topics").stdout
    assert "/us/image_raw [sensor_msgs/msg/Image]\n" in shown and "/_hidden [std_msgs/msg/String]\n" in shown


def test_echo_once(talker: None) -> None:
    (first, rest) = usx_topic("echo", "--once", "us/image_raw").stdout.split("---\n")
    shown = yaml.safe_load(first)
    assert rest == "" and list(shown) == ["header", "height", "width", "encoding", "is_bigendian", "step", "data"]
    assert shown["header"]["frame_id"] == "us_image" and shown["data"] == [*range(128), "..."]
    assert yaml.safe_load(usx_topic("echo", "--once", "/state").stdout.split("---")[0]) == {"data": "fertig: ä"}
    without = usx_topic("echo", "--once", "--no-arr", "/us/image_raw").stdout
    assert "data: '<sequence type: uint8, length: 200>'\n" in without


def test_hz(talker: None) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "usx_runtime", "topic", "hz", "/us/image_raw"],
        env={**os.environ, "USX_ROS": "embedded", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()
    process.stdout.read()
    assert process.wait(30) == 0
    assert line.startswith("average rate: ") and 20 < float(line.split()[-1]) < 150


def test_waiting_for_a_topic_that_nobody_publishes_yet() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "usx_runtime", "topic", "echo", "--once", "/later", "std_msgs/msg/String"],
        env={**os.environ, "USX_ROS": "embedded"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with Participant() as participant:
        writer = participant.create_writer("/later", "std_msgs/msg/String", QoSProfile(depth=1))
        end = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < end:
            writer.write(messages.serialize(messages.get_message("std_msgs/msg/String")(data="now")))
            time.sleep(0.05)
    output, _ = process.communicate(timeout=30)
    assert output == "data: now\n---\n"


def test_text_of_all_kinds_of_fields() -> None:
    info = messages.get_message("sensor_msgs/msg/CameraInfo")(k=np.arange(9.0), d=[0.5])
    shown = yaml.safe_load(message_to_text(info))
    assert shown["k"] == list(range(9)) and shown["d"] == [0.5] and shown["roi"]["do_rectify"] is False
    status = messages.get_message("diagnostic_msgs/msg/DiagnosticStatus")(level=b"\x02", name="node: state")
    status.values = [messages.get_message("diagnostic_msgs/msg/KeyValue")(key="a", value="1")] * 200
    shown = yaml.safe_load(message_to_text(status))
    assert shown["level"] == 2 and shown["values"][0] == {"key": "a", "value": "1"} and len(shown["values"]) == 129
    assert len(yaml.safe_load(message_to_text(status, full=True))["values"]) == 200
    assert yaml.safe_load(message_to_text(info, show_arrays=False))["k"] == "<sequence type: double[9], length: 9>"
