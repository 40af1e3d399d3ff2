"""The command line of ROS 2 on this machine: `ros2`, or `usx` where there is no ROS 2."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from usx_common.errors import UsxError


def ros_command() -> list[str]:
    """First words of a ROS 2 command. Raises UsxError when neither ``ros2`` nor ``usx`` is found."""
    for name in ("ros2", "usx"):
        beside_python = Path(sys.executable).parent / name
        found = shutil.which(name) or (str(beside_python) if beside_python.is_file() else None)
        if found:
            return [found]
    raise UsxError("neither `ros2` nor `usx` is on the path; source a ROS 2 installation or activate the environment")


def resolve(command: list[str]) -> list[str]:
    """A command whose first word ``ros2`` is replaced by what stands for it here."""
    return [*ros_command(), *command[1:]] if command[:1] == ["ros2"] else command
