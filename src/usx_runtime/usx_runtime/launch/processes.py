"""What a launch file asks to be started."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

EMBEDDED = (sys.executable, "-m", "usx_runtime")


@dataclass(frozen=True)
class Process:
    """One child process. `respawn_delay`: seconds; None = not started again when it exits."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None
    respawn_delay: float | None = None
    shutdown_on_exit: bool = False


def embedded_command(words: Sequence[str]) -> tuple[str, ...]:
    """`words` with `ros2` replaced by the embedded `usx`, as the command itself and after every `--`."""
    command: list[str] = []
    for place, word in enumerate(words):
        if word == "ros2" and (place == 0 or words[place - 1] == "--"):
            command.extend(EMBEDDED)
        else:
            command.append(word)
    return tuple(command)


def embedded_shell_line(line: str) -> str:
    """The same for a command line that a shell will read."""
    program = " ".join(f"'{word}'" for word in EMBEDDED)
    return re.sub(r"(^\s*|\s--\s+|[;&|]\s*)ros2(?=\s)", lambda match: match.group(1) + program, line)
