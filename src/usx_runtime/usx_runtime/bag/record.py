"""`usx bag record`: write the messages of topics, as they come, into a rosbag2 recording (mcap)."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from rosbags.rosbag2 import StoragePlugin, Writer, WriterError

from usx_runtime import messages
from usx_runtime.bag.quality import to_recorded, to_subscribe
from usx_runtime.dds import Endpoint, Participant, RawReader
from usx_runtime.dds.typehash import type_hash
from usx_runtime.signals import stop_on_signal
from usx_runtime.user_error import UserError

NODE = ("rosbag2_recorder", "/")
BAG_VERSION: Literal[9] = 9  # what ROS 2 Jazzy writes
QUEUE_DEPTH = 500
POLLING = 0.2  # seconds between looks for new topics
DRAIN = 0.3  # seconds during which what is under way when the recording ends is still taken


@dataclass(frozen=True)
class RecordOptions:
    """What to record: `topics`, those matching `regex`, or all; hidden ones (a part begins with _) only by name."""

    output: Path
    topics: tuple[str, ...] = ()
    all_topics: bool = False
    regex: str = ""

    def wants(self, topic: str) -> bool:
        if topic in self.topics:
            return True
        hidden = any(part.startswith("_") for part in topic.split("/"))
        return not hidden and (self.all_topics or bool(self.regex and re.search(self.regex, topic)))


class Recorder:
    """Records until `stop` is set. Topics that appear later are recorded from then on."""

    def __init__(self, participant: Participant, writer: Writer, options: RecordOptions, stop: threading.Event) -> None:
        self.participant = participant
        self.writer = writer
        self.options = options
        self.stop = stop
        self.count = 0
        self._inputs: dict[str, tuple[RawReader, Any]] = {}
        self._refused: set[str] = set()
        participant.add_node(*NODE)

    def run(self, subscribed: Callable[[str], None]) -> None:
        """`subscribed(topic)` is called for every new topic."""
        look = 0.0
        while not self.stop.is_set():
            if time.monotonic() >= look:
                self._look_for_topics(subscribed)
                look = time.monotonic() + POLLING
            readers = [reader for reader, _ in self._inputs.values()]
            if readers:
                self.participant.wait(readers, POLLING)
            else:
                self.stop.wait(POLLING)
            self._write_arrived()
        end = time.monotonic() + DRAIN
        while time.monotonic() < end:
            self._write_arrived()
            time.sleep(0.02)

    def _look_for_topics(self, subscribed: Callable[[str], None]) -> None:
        for topic in self.participant.graph.topics():
            if topic in self._inputs or topic in self._refused or not self.options.wants(topic):
                continue
            offers = self.participant.graph.writers(topic)
            if not offers:
                continue  # nobody publishes it yet: its quality of service is not known
            problem = _problem(offers)
            if problem:
                self._refused.add(topic)
                print(f"[WARN] {topic} is not recorded: {problem}", flush=True)
                continue
            self._inputs[topic] = self._subscribe(topic, offers)
            subscribed(topic)

    def _subscribe(self, topic: str, offers: list[Endpoint]) -> tuple[RawReader, Any]:
        kind = offers[0].type_name
        profiles = [offer.qos for offer in offers]
        definition, _ = messages.typestore().generate_msgdef(kind, ros_version=2)
        connection = self.writer.add_connection(
            topic,
            kind,
            msgdef=definition,
            rihs01=type_hash(kind),
            offered_qos_profiles=[to_recorded(profile) for profile in profiles],
        )
        return self.participant.create_reader(topic, kind, to_subscribe(profiles, QUEUE_DEPTH), NODE), connection

    def _write_arrived(self) -> None:
        arrived = [
            (sample.received_ns, connection, sample.data)
            for reader, connection in self._inputs.values()
            for sample in reader.take(QUEUE_DEPTH)
        ]
        for time_ns, connection, data in sorted(arrived, key=lambda item: item[0]):
            self.writer.write(connection, time_ns, data)
            self.count += 1


def _problem(offers: list[Endpoint]) -> str:
    kinds = {offer.type_name for offer in offers}
    if len(kinds) > 1:
        return f"it is published with several types {sorted(kinds)}"
    try:
        messages.get_message(offers[0].type_name)
    except messages.UnknownType:
        return f"no definition of its type {offers[0].type_name}"
    return ""


def default_output() -> Path:
    """rosbag2's name for a recording without a given one."""
    return Path(f"rosbag2_{datetime.now():%Y_%m_%d-%H_%M_%S}")


def record(options: RecordOptions) -> int:
    """Record until SIGINT or SIGTERM; returns the exit code. Raises UserError where it cannot write."""
    writer = Writer(options.output, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP)
    try:
        with stop_on_signal() as stop, Participant() as participant, writer:
            recorder = Recorder(participant, writer, options, stop)
            print(f"[INFO] recording into {options.output}; end it with Ctrl-C", flush=True)
            recorder.run(lambda topic: print(f"[INFO] subscribed to topic {topic}", flush=True))
    except OSError as error:
        raise UserError(f"cannot write bag '{options.output}': {error.strerror or error}; it is incomplete") from None
    print(f"[INFO] recorded {recorder.count} messages into {options.output}", flush=True)
    return 0


def check_output(output: Path) -> None:
    """Raises UserError where `output` exists already."""
    try:
        Writer(output, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP)
    except WriterError:
        raise UserError(f"'{output}' exists already, and a recording is never overwritten: give another -o") from None
