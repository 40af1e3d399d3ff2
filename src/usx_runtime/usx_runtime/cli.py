"""The command `usx`: the words and options of `ros2`, for machines without ROS 2."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from importlib import import_module

from usx_runtime import hook
from usx_runtime.user_error import UserError

COMMANDS = {  # imported only when asked for: a node must not pay for the bag tools
    "run": ("usx_runtime.executables", "run an executable of a package"),
    "launch": ("usx_runtime.launch.command", "start the nodes of a launch file"),
    "bag": ("usx_runtime.bag.command", "play, record and describe recordings (rosbag2)"),
    "topic": ("usx_runtime.topic.command", "list topics, show their messages and rates"),
}

USAGE = "usage: usx [-h] {run,launch,bag,topic} ...\n\n" + (
    "The commands of `ros2` that the usx suite needs, on an embedded ROS 2 runtime. Where a ROS 2 distribution is\n"
    "sourced, `usx X` runs `ros2 X` (environment variable USX_ROS=embedded prevents it, USX_ROS=real demands it).\n\n"
    + "".join(f"  {name:8}{text}\n" for name, (_, text) in COMMANDS.items())
    + "\n`usx COMMAND --help` says more.\n"
    "example: usx launch usx_bringup replay.launch.xml bag:=acquisition/bag"
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 2 with one line on stderr for what the user can put right."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    command, *rest = arguments
    try:
        if command not in COMMANDS:
            raise UserError(f"unknown command '{command}'; the commands are: {', '.join(COMMANDS)}")
        if hook.uses_real():
            _become_ros2(arguments)
        return int(import_module(COMMANDS[command][0]).main(rest))
    except (UserError, hook.RuntimeChoiceError) as error:
        print(f"usx {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of our output has gone, as in `usx topic list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _become_ros2(arguments: list[str]) -> None:
    program = shutil.which("ros2")
    if program is None:
        raise UserError(
            f"a real ROS 2 is to be used ({hook.real_location() or 'USX_ROS=real'}) but no `ros2` is on the PATH: "
            "source the set-up file of the distribution, or set USX_ROS=embedded"
        )
    os.execv(program, ["ros2", *arguments])
