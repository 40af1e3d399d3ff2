"""Ends the processes of a launch whose launcher has died without doing so (kill -9).

Runs as a process of its own, started by path so that it imports nothing else. Reads lines "+GROUP" and "-GROUP"
(process groups) from standard input; the launcher's death closes that, whatever killed it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time

GRACE = 3.0  # seconds between SIGTERM and SIGKILL


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    end = time.monotonic() + GRACE
    _signal(groups, signal.SIGTERM)
    while groups and time.monotonic() < end:
        time.sleep(0.05)
        groups = {group for group in groups if _signal({group}, 0)}
    _signal(groups, signal.SIGKILL)
    shutil.rmtree(sys.argv[1], ignore_errors=True)  # the launcher's temporary files


def _signal(groups: set[int], number: int) -> bool:
    alive = False
    for group in groups:
        try:
            os.killpg(group, number)
            alive = True
        except (ProcessLookupError, PermissionError):
            pass
    return alive


if __name__ == "__main__":
    main()
