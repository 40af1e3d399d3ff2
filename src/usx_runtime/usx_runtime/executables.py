"""`usx run`: the executables of a package are its console scripts."""

from __future__ import annotations

import signal
import sys
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution

from usx_runtime import hook
from usx_runtime.user_error import UserError

USAGE = """usage: usx run PACKAGE EXECUTABLE [arguments ...] [--ros-args -r FROM:=TO -p NAME:=VALUE ...]

Run an executable of a package, as `ros2 run` does; everything after EXECUTABLE is passed to it.
`usx run PACKAGE` lists the executables of a package.

example: usx run usx_compounding compounding_node --ros-args -p spacing:=0.5 -r us/image_raw:=/camera/image"""


def entry_points(package: str) -> dict[str, EntryPoint]:
    """{name: entry point} of the console scripts of `package`. Raises UserError where it is not installed."""
    try:
        found = distribution(package).entry_points
    except (PackageNotFoundError, ValueError):
        raise UserError(f"package '{package}' is not installed in this Python environment ({sys.prefix})") from None
    return {entry.name: entry for entry in found if entry.group == "console_scripts"}


def find_executable(package: str, executable: str) -> EntryPoint:
    """The entry point `executable` of `package`; raises UserError naming the executables there are."""
    known = entry_points(package)
    if executable not in known:
        names = ", ".join(sorted(known)) or "none"
        raise UserError(f"package '{package}' has no executable '{executable}'; it has: {names}")
    return known[executable]


def main(arguments: list[str]) -> int:
    """Run the executable in this process; returns its exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0].startswith("-"):
        raise UserError(f"unknown option '{arguments[0]}': options of the executable come after its name")
    if len(arguments) == 1:
        print("\n".join(sorted(entry_points(arguments[0]))))
        return 0
    package, executable, *rest = arguments
    entry = find_executable(package, executable)
    hook.install()
    function = entry.load()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see __main__; what follows is the executable's own matter
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [executable, *rest]
    try:
        result = function()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if isinstance(result, str):  # as sys.exit treats it
        print(result, file=sys.stderr)
        return 1
    return int(result or 0)
