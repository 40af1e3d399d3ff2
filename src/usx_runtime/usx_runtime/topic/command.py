"""The command `usx topic`."""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator

from usx_runtime import messages
from usx_runtime.bag.quality import to_subscribe
from usx_runtime.dds import Participant, RawReader, RawSample
from usx_runtime.signals import stop_on_signal
from usx_runtime.user_error import UserError

DISCOVERY = 1.0  # seconds during which topics are looked for
WAKE = 0.2  # seconds between looks at the stop event


def main(arguments: list[str]) -> int:
    """`list`, `echo` or `hz`; returns the exit code."""
    options = _parser().parse_args(arguments)
    with stop_on_signal() as stop, Participant() as participant:
        return int({"list": _list, "echo": _echo, "hz": _hz}[options.verb](options, participant, stop))


def _list(options: argparse.Namespace, participant: Participant, stop: threading.Event) -> int:
    stop.wait(DISCOVERY)
    for name, kinds in participant.graph.topics().items():
        if options.include_hidden_topics or not any(part.startswith("_") for part in name.split("/")):
            print(f"{name} [{', '.join(kinds)}]" if options.show_types else name)
    return 0


def _echo(options: argparse.Namespace, participant: Participant, stop: threading.Event) -> int:
    from usx_runtime.topic.text import message_to_text

    reader, kind = _subscribe(options.topic, options.type, participant, stop)
    message_class = messages.get_message(kind)
    for sample in _samples(reader, participant, stop):
        try:
            message = messages.deserialize(sample.data, message_class)
        except messages.MalformedMessage as error:
            raise UserError(f"{options.topic} carries something else: {error}") from None
        print(f"{message_to_text(message, not options.no_arr, options.full_length)}---", flush=True)
        if options.once:
            break
    return 0


def _hz(options: argparse.Namespace, participant: Participant, stop: threading.Event) -> int:
    reader, _ = _subscribe(options.topic, None, participant, stop)
    intervals: deque[float] = deque(maxlen=options.window)
    previous: float | None = None
    shown = time.monotonic()
    for sample in _samples(reader, participant, stop):
        arrived = sample.received_ns / 1e9
        if previous is not None:
            intervals.append(arrived - previous)
        previous = arrived
        if time.monotonic() - shown >= 1.0 and intervals:
            shown = time.monotonic()
            _show_rate(intervals)
    return 0


def _show_rate(intervals: deque[float]) -> None:
    mean = statistics.fmean(intervals)
    deviation = statistics.pstdev(intervals)
    print(f"average rate: {1 / mean if mean else float('inf'):.3f}")
    print(
        f"\tmin: {min(intervals):.3f}s max: {max(intervals):.3f}s std dev: {deviation:.5f}s"
        f" window: {len(intervals) + 1}"
    )


def _subscribe(topic: str, kind: str | None, participant: Participant, stop: threading.Event) -> tuple[RawReader, str]:
    """A reader that suits the publishers there are, and the topic's type. Raises UserError where it has none."""
    topic = topic if topic.startswith("/") else f"/{topic}"
    end = time.monotonic() + DISCOVERY
    while time.monotonic() < end and not participant.graph.writers(topic):
        if stop.wait(0.05):
            break
    offers = participant.graph.writers(topic)
    kinds = participant.graph.topics().get(topic, [])
    if kind is None:
        if not kinds:
            raise UserError(f"topic {topic} does not appear to be published yet; give its type to wait for it")
        if len(kinds) > 1:
            raise UserError(f"topic {topic} has several types {kinds}: give one")
        kind = kinds[0]
    try:
        messages.get_message(kind)
    except messages.UnknownType as error:
        raise UserError(str(error)) from None
    return participant.create_reader(topic, kind, to_subscribe([offer.qos for offer in offers], 100)), kind


def _samples(reader: RawReader, participant: Participant, stop: threading.Event) -> Iterator[RawSample]:
    """Messages as they come, until `stop`."""
    while not stop.is_set():
        participant.wait([reader], WAKE)
        yield from reader.take(100)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="usx topic", description="List topics, show their messages and rates.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="{list,echo,hz}")
    listing = verbs.add_parser("list", help="names of all topics", description="Print the names of all topics.")
    listing.add_argument("-t", "--show-types", action="store_true", help="print the types too")
    listing.add_argument(
        "--include-hidden-topics", action="store_true", help="also those with a part that begins with _"
    )
    echo = verbs.add_parser("echo", help="print messages", description="Print a topic's messages as YAML until Ctrl-C.")
    echo.add_argument("topic", metavar="TOPIC")
    echo.add_argument("type", metavar="TYPE", nargs="?", help="message type, where nobody publishes it yet")
    echo.add_argument("--once", action="store_true", help="end after the first message")
    echo.add_argument("--no-arr", action="store_true", help="do not print arrays")
    echo.add_argument("-f", "--full-length", action="store_true", help="print arrays whole (default: 128 elements)")
    rate = verbs.add_parser("hz", help="rate of a topic", description="Print the rate of a topic once a second.")
    rate.add_argument("topic", metavar="TOPIC")
    rate.add_argument("-w", "--window", type=int, default=10000, help="messages to average over (default: 10000)")
    return parser
