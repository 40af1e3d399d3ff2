"""The command `usx bag`."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

from usx_runtime.user_error import UserError


def main(arguments: list[str]) -> int:
    """`play`, `record` or `info`; returns the exit code."""
    options = _parser().parse_args(arguments)
    return int({"play": _play, "record": _record, "info": _info}[options.verb](options))


def _play(options: argparse.Namespace) -> int:
    from usx_runtime.bag.play import PlayOptions, play

    path = options.input or options.bag_path
    if not path:
        raise UserError("which bag? usage: usx bag play BAG")
    _check_positive("--rate", options.rate)
    if options.clock is not None:
        _check_positive("--clock", options.clock)
    for name in ("start_offset", "delay"):
        if not 0 <= getattr(options, name) < math.inf:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be 0 or more seconds")
    timeout = options.wait_for_all_acked
    return play(
        path,
        PlayOptions(
            rate=options.rate,
            clock_hz=options.clock or 0.0,
            loop=options.loop,
            start_offset=options.start_offset,
            delay=options.delay,
            topics=tuple(_absolute(topic) for topic in options.topics),
            remap=_remappings(options.remap),
            acknowledge_timeout=None if timeout < 0 else timeout / 1000,
        ),
    )


def _record(options: argparse.Namespace) -> int:
    from usx_runtime.bag.record import RecordOptions, check_output, default_output, record

    topics = tuple(_absolute(topic) for topic in (*options.topics, *options.topic_list))
    if not (topics or options.all or options.regex):
        raise UserError("nothing to record: give -a, topics or --regex")
    try:
        re.compile(options.regex)
    except re.error as error:
        raise UserError(f"--regex '{options.regex}': {error}") from None
    output = Path(options.output) if options.output else default_output()
    check_output(output)
    return record(RecordOptions(output, topics, options.all, options.regex))


def _info(options: argparse.Namespace) -> int:
    from usx_runtime.bag.info import show_info

    return show_info(options.bag_path)


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise UserError(f"{name} {value}: must be a positive number")


def _absolute(topic: str) -> str:
    return topic if topic.startswith("/") else f"/{topic}"


def _remappings(rules: list[str]) -> dict[str, str]:
    pairs = {}
    for rule in rules:
        before, separator, after = rule.partition(":=")
        if not (separator and before and after):
            raise UserError(f"--remap {rule}: must be OLD:=NEW")
        pairs[_absolute(before)] = _absolute(after)
    return pairs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="usx bag", description="Play, record and describe recordings (rosbag2).")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="{play,record,info}")

    play = verbs.add_parser(
        "play",
        help="publish a recording",
        description="Publish the messages of a recording at the times at which they were recorded. Waits for the "
        "subscribers that are there to be discovered, then begins.",
        epilog="example: usx bag play acquisition/bag --clock --rate 0.5",
    )
    play.add_argument("bag_path", nargs="?", metavar="BAG", help="folder of the recording, or a storage file")
    play.add_argument("-i", "--input", metavar="BAG", help="the same as an option")
    play.add_argument("-r", "--rate", type=float, default=1.0, help="factor of speed (default: 1.0)")
    play.add_argument(
        "--clock",
        nargs="?",
        type=float,
        const=40.0,
        metavar="HZ",
        help="publish /clock HZ times a second (default: 40)",
    )
    play.add_argument("-l", "--loop", action="store_true", help="begin again at the end, until interrupted")
    play.add_argument("-d", "--delay", type=float, default=0.0, metavar="S", help="seconds to wait before the start")
    play.add_argument("--start-offset", type=float, default=0.0, metavar="S", help="seconds to skip at the beginning")
    play.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="play these only")
    play.add_argument("-m", "--remap", nargs="+", default=[], metavar="OLD:=NEW", help="publish under another name")
    play.add_argument(
        "--wait-for-all-acked",
        type=int,
        default=5000,
        metavar="MS",
        help="at the end wait up to MS milliseconds until reliable subscribers have everything; 0 = for ever, "
        "negative = not at all (default: 5000)",
    )
    play.add_argument(
        "--read-ahead-queue-size",
        type=int,
        metavar="N",
        help="accepted for compatibility; the bag is read while played",
    )
    play.add_argument(
        "--disable-keyboard-controls", action="store_true", help="accepted for compatibility; there are none"
    )

    record = verbs.add_parser(
        "record",
        help="record topics",
        description="Record the messages of topics into a new folder (mcap and metadata.yaml) until Ctrl-C.",
        epilog="example: usx bag record -o sweep /us/image_raw /tf /tf_static",
    )
    record.add_argument("topics", nargs="*", metavar="TOPIC", help="topics to record")
    record.add_argument("--topics", nargs="+", dest="topic_list", default=[], metavar="TOPIC", help="the same")
    record.add_argument("-a", "--all", action="store_true", help="record all topics, also those that appear later")
    record.add_argument("-e", "--regex", default="", help="record topics in whose name this is found")
    record.add_argument("-o", "--output", metavar="DIR", help="folder to make (default: rosbag2_DATE-TIME)")
    record.add_argument("-s", "--storage", choices=["mcap"], default="mcap", help="storage format (mcap)")

    info = verbs.add_parser("info", help="describe a recording", description="Print files, times and topics of a bag.")
    info.add_argument("bag_path", metavar="BAG", help="folder of the recording, or a storage file")
    return parser
