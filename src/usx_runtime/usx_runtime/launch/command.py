"""The command `usx launch`."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from usx_runtime.ament_index_python import PackageNotFoundError, get_package_share_path
from usx_runtime.launch.processes import Process
from usx_runtime.launch.reader import declared_arguments, read_launch_file
from usx_runtime.launch.supervisor import Supervisor
from usx_runtime.user_error import UserError


def main(arguments: list[str]) -> int:
    """Run a launch file until its processes have ended or a signal comes."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # until the supervisor takes over
    file, given = _find(options.package, options.words)
    if options.show_args:
        _show_arguments(file)
        return 0
    temporary = Path(tempfile.mkdtemp(prefix="usx_launch_"))
    try:
        processes, warnings = read_launch_file(file, given, temporary)
        for warning in warnings:
            print(f"[WARN] [launch]: {warning}", flush=True)
        return asyncio.run(_supervise(processes, temporary))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


async def _supervise(processes: list[Process], temporary: Path) -> int:
    return await Supervisor(processes, temporary, show=_show).run()


def _show(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:  # `usx launch ... | head`: the nodes go on
        sys.stdout = open("/dev/null", "w")  # noqa: PTH123


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="usx launch",
        description="Start the processes of a ROS 2 launch file (XML), print their output with their names in front, "
        "and end them all on Ctrl-C.",
        epilog="example: usx launch usx_bringup replay.launch.xml bag:=acquisition/bag",
    )
    parser.add_argument("package", metavar="PACKAGE", help="package whose share folder holds FILE, or a file")
    parser.add_argument("words", metavar="FILE NAME:=VALUE", nargs="*", help="launch file, launch arguments")
    parser.add_argument("-s", "--show-args", action="store_true", help="print the launch arguments")
    return parser


def _find(package: str, words: list[str]) -> tuple[Path, dict[str, str]]:
    """(launch file, launch arguments) that the words of the command line name."""
    names = [word for word in words if ":=" not in word]
    given = dict(word.split(":=", 1) for word in words if ":=" in word)
    if not names:
        if package.endswith((".xml", ".py", ".yaml")) or "/" in package:
            return Path(package), given
        raise UserError(f"which launch file of '{package}'? usage: usx launch PACKAGE FILE [NAME:=VALUE ...]")
    if len(names) > 1:
        raise UserError(f"'{names[1]}': launch arguments are written NAME:=VALUE")
    try:
        share = get_package_share_path(package)
    except (PackageNotFoundError, ValueError) as error:
        raise UserError(str(error)) from None
    files = [Path(folder, file) for folder, _, inside in os.walk(share, followlinks=True) for file in inside]
    found = sorted(file for file in files if file.name == names[0])
    if not found:
        known = ", ".join(sorted(file.name for file in files if file.name.endswith(".launch.xml"))) or "none"
        raise UserError(f"package '{package}' has no launch file '{names[0]}' (in {share}); it has: {known}")
    if len(found) > 1:
        raise UserError(f"'{names[0]}' is ambiguous in '{package}': {', '.join(map(str, found))}")
    return found[0], given


def _show_arguments(file: Path) -> None:
    print("Arguments (pass arguments as '<name>:=<value>'):")
    for name, default, description in declared_arguments(file):
        print(f"\n    '{name}':\n        {description}")
        if default is not None:
            print(f"        (default: '{default}')")
