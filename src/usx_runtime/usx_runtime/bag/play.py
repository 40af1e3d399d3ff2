"""`usx bag play`: publish a recording's messages at the times at which they were recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from usx_runtime import messages
from usx_runtime.bag.quality import VOLATILE_DEPTH, to_play
from usx_runtime.bag.recording import RecordedTopic, Recording, open_recording
from usx_runtime.dds import Participant, RawWriter
from usx_runtime.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from usx_runtime.signals import stop_on_signal
from usx_runtime.user_error import UserError

NODE = ("rosbag2_player", "/")
SECOND = 10**9
SETTLE = 0.5  # seconds without a new subscription after which discovery counts as done
SETTLE_ALONE = 1.0  # the same as long as there is none at all
DISCOVERY_LIMIT = 5.0


@dataclass(frozen=True)
class PlayOptions:
    """Options of `ros2 bag play`. Times in seconds; `clock_hz` 0 = no /clock; `topics` empty = all."""

    rate: float = 1.0
    clock_hz: float = 0.0
    loop: bool = False
    start_offset: float = 0.0
    delay: float = 0.0
    topics: tuple[str, ...] = ()
    remap: dict[str, str] = field(default_factory=dict)
    acknowledge_timeout: float | None = 5.0


class _Outlet:
    """A publisher of one topic that does not run ahead of its reliable subscribers by more than it keeps."""

    def __init__(self, participant: Participant, topic: str, type_name: str, qos: QoSProfile) -> None:
        self.writer: RawWriter = participant.create_writer(topic, type_name, qos, NODE)
        self.reliable = qos.reliability == ReliabilityPolicy.RELIABLE
        paced = self.reliable and qos.durability == DurabilityPolicy.VOLATILE
        self._interval = VOLATILE_DEPTH // 2 if paced else 0
        self._unchecked = 0

    def write(self, data: bytes) -> None:
        self.writer.write(data)
        self._unchecked += 1
        if self._interval and self._unchecked >= self._interval:
            self._unchecked = 0
            if not self.writer.wait_for_acknowledgements(1.0):
                self._interval = 0  # a subscriber has stopped reading: it must not hold up the others


class _Clock:
    """Publishes the time of the recording on /clock, at a steady rate of the wall clock."""

    def __init__(self, participant: Participant, rate_hz: float) -> None:
        self.period = 1.0 / rate_hz
        self.due = 0.0  # steady clock
        self._kind = messages.get_message("rosgraph_msgs/msg/Clock")
        self.outlet = _Outlet(participant, "/clock", "rosgraph_msgs/msg/Clock", QoSProfile(depth=10))

    def publish(self, bag_ns: int) -> None:
        message = self._kind()
        message.clock.sec, message.clock.nanosec = divmod(bag_ns, SECOND)
        self.outlet.writer.write(messages.serialize(message))


class Player:
    """One playing of a recording; `stop` ends it early."""

    def __init__(self, recording: Recording, participant: Participant, options: PlayOptions, stop: threading.Event):
        self.recording = recording
        self.options = options
        self.stop = stop
        self.played = 0
        participant.add_node(*NODE)
        self.outlets = {
            topic: _Outlet(participant, options.remap.get(topic, topic), kind, qos)
            for topic, kind, qos in _publishable(recording, options.topics)
            if not (options.clock_hz and topic == "/clock")  # two clocks would contradict each other
        }
        self.clock = _Clock(participant, options.clock_hz) if options.clock_hz else None

    def run(self) -> None:
        """Wait for the subscribers, play, and wait until they have acknowledged everything."""
        self._wait_for_subscribers()
        self.stop.wait(self.options.delay)
        while not self.stop.is_set():
            self._play_once()
            if not self.options.loop:
                break
        if self.options.acknowledge_timeout is not None and not self.stop.is_set():
            self._wait_for_acknowledgements(self.options.acknowledge_timeout)

    def _wait_for_subscribers(self) -> None:
        """Until no further subscription turns up: what is sent before a subscriber is known is lost to it."""
        writers = [outlet.writer for outlet in self.outlets.values()]
        if self.clock is not None:
            writers.append(self.clock.outlet.writer)
        limit = time.monotonic() + DISCOVERY_LIMIT
        quiet_since, known = time.monotonic(), 0
        while not self.stop.wait(0.05):
            now = time.monotonic()
            matched = sum(writer.matched() for writer in writers)
            if matched != known:
                quiet_since, known = now, matched
            if now - quiet_since >= (SETTLE if known else SETTLE_ALONE) or now > limit:
                return

    def _play_once(self) -> None:
        start_ns = self.recording.start_ns + round(self.options.start_offset * SECOND)
        began = time.monotonic()
        rate = self.options.rate
        if self.clock is not None:
            self.clock.due = began  # also in a second pass: time has jumped back

        def bag_time() -> int:
            return start_ns + round((time.monotonic() - began) * rate * SECOND)

        for topic, time_ns, data in self.recording.messages(set(self.outlets), start_ns):
            self._sleep_until(began + (time_ns - start_ns) / SECOND / rate, bag_time)
            if self.stop.is_set():
                return
            self.outlets[topic].write(data)
            self.played += 1
        if self.clock is not None:
            self.clock.publish(max(bag_time(), self.recording.end_ns))

    def _sleep_until(self, due: float, bag_time: Callable[[], int]) -> None:
        while not self.stop.is_set():
            now = time.monotonic()
            if self.clock is not None and now >= self.clock.due:
                self.clock.publish(bag_time())
                self.clock.due = max(self.clock.due + self.clock.period, now)
            if now >= due:
                return
            until = due if self.clock is None else min(due, self.clock.due)
            self.stop.wait(max(0.0, until - now))

    def _wait_for_acknowledgements(self, seconds: float) -> None:
        end = time.monotonic() + seconds if seconds else float("inf")
        for topic, outlet in self.outlets.items():
            while outlet.reliable and not outlet.writer.wait_for_acknowledgements(0.2):
                if self.stop.is_set():
                    return
                if time.monotonic() > end:
                    print(f"[WARN] not every message on {topic} was acknowledged within {seconds} s", flush=True)
                    break


def _publishable(recording: Recording, wanted: tuple[str, ...]) -> Iterator[tuple[str, str, QoSProfile]]:
    """(topic, type, quality of service) of what can be played. Raises UserError for a wanted topic that is missing."""
    missing = set(wanted) - {topic.name for topic in recording.topics}
    if missing:
        names = ", ".join(sorted(topic.name for topic in recording.topics))
        raise UserError(f"bag '{recording.path}' has no topic {sorted(missing)[0]}; it has: {names}")
    grouped: dict[str, list[RecordedTopic]] = {}
    for topic in recording.topics:
        if not wanted or topic.name in wanted:
            grouped.setdefault(topic.name, []).append(topic)
    for name, parts in grouped.items():
        kinds = {part.type_name for part in parts}
        if len(kinds) > 1:
            print(f"[WARN] {name} was recorded with several types {sorted(kinds)}, not played", flush=True)
        elif not _known(parts[0]):
            print(f"[WARN] {name}: no definition of its type {parts[0].type_name}, not played", flush=True)
        else:
            yield name, parts[0].type_name, to_play([offer for part in parts for offer in part.qos])


def _known(topic: RecordedTopic) -> bool:
    try:
        if topic.definition:
            messages.register(topic.definition, topic.type_name)
        messages.get_message(topic.type_name)
    except Exception:  # whatever a foreign definition makes the parser say, the other topics can be played
        return False
    return True


def play(path: str, options: PlayOptions) -> int:
    """Play the recording in `path`; returns the exit code."""
    with open_recording(path) as recording, stop_on_signal() as stop, Participant() as participant:
        player = Player(recording, participant, options, stop)
        if options.start_offset * SECOND > recording.end_ns - recording.start_ns:
            raise UserError(f"--start-offset {options.start_offset}: the bag lasts {_seconds(recording):.3f} s")
        print(f"[INFO] playing {path}: {recording.count} messages, {_seconds(recording):.1f} s", flush=True)
        player.run()
        print(f"[INFO] played {player.played} messages", flush=True)
    return 0


def _seconds(recording: Recording) -> float:
    return (recording.end_ns - recording.start_ns) / SECOND
