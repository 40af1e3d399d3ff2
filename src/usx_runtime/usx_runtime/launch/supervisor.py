"""Runs processes together: prefixes their output, forwards signals, restarts or shuts down as each one says."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from usx_runtime.launch.processes import EMBEDDED, Process

SIGTERM_AFTER = 5.0  # seconds after SIGINT, as in ROS 2
SIGKILL_AFTER = 10.0
ESCALATION = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
ENDED_BY_REQUEST = (0, -signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGTERM)


class Supervisor:
    """One run of a launch file's processes.

    `show(line)` prints a line of output. `temporary`: folder that goes when the launch has ended, however it ends."""

    def __init__(self, processes: Sequence[Process], temporary: Path, show: Callable[[str], None]) -> None:
        self.processes = processes
        self.temporary = temporary
        self.show = show
        self.exit_code = 0
        self._groups: set[int] = set()
        self._level = 0
        self._stopping = asyncio.Event()
        self._guard: subprocess.Popen[str] | None = None

    async def run(self) -> int:
        """Returns when every process has ended: 0, or 1 where one with on_exit="shutdown" has failed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, number)
        self._guard = subprocess.Popen(
            [sys.executable, "-S", "-E", str(Path(__file__).with_name("guard.py")), str(self.temporary)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        try:
            await asyncio.gather(*(self._keep(process) for process in self.processes))
        finally:
            self._signal(signal.SIGKILL)
            await asyncio.to_thread(self._guard.communicate)
        return self.exit_code

    # ---- one process

    async def _keep(self, process: Process) -> None:
        while not self._stopping.is_set():
            code = await self._run_once(process)
            if self._stopping.is_set():
                return
            if process.respawn_delay is not None:
                await self._pause(process.respawn_delay)
                continue
            if process.shutdown_on_exit:
                self.exit_code = max(self.exit_code, int(code != 0))
                self.stop(f"[{process.name}] has ended, which ends the launch")
            return

    async def _run_once(self, process: Process) -> int:
        # A pipe of our own: with asyncio's, wait() also waits for grandchildren that hold the pipe open.
        reading_end, writing_end = os.pipe()
        # An interrupt that hits Python's own start is a fatal error with a traceback: __main__ unblocks it after that.
        ours = process.command[: len(EMBEDDED)] == EMBEDDED
        signal.pthread_sigmask(signal.SIG_BLOCK if ours else signal.SIG_UNBLOCK, {signal.SIGINT})
        try:
            child = await asyncio.create_subprocess_exec(
                *process.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing_end,
                stderr=asyncio.subprocess.STDOUT,
                env={**process.environment, "PYTHONUNBUFFERED": "1"},
                cwd=process.folder,
                start_new_session=True,
            )
        except OSError as error:
            self.show(f"[ERROR] [launch]: [{process.name}] cannot be started: {error}")
            os.close(reading_end)
            return 127
        finally:
            os.close(writing_end)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self._register(child.pid, "+")
        self.show(f"[INFO] [{process.name}]: process started with pid [{child.pid}]")
        if self._level:  # a stop was asked for while this process was being born
            self._signal(ESCALATION[self._level - 1])
        reading = asyncio.create_task(self._show_output(process.name, reading_end))
        code = await child.wait()
        # What it has started and left behind goes with it; it might also keep the pipe of the output open.
        self._end_group(child.pid, signal.SIGTERM)
        await asyncio.wait([reading], timeout=2.0)
        self._end_group(child.pid, signal.SIGKILL)
        await reading
        self._register(child.pid, "-")
        self._say_end(process, child.pid, code)
        return code

    async def _show_output(self, name: str, pipe: int) -> None:
        stream = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(stream)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(pipe, "rb", 0))
        rest = b""
        while data := await stream.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self.show(f"[{name}] {line.decode(errors='replace')}")
        if rest:
            self.show(f"[{name}] {rest.decode(errors='replace')}")

    def _say_end(self, process: Process, pid: int, code: int) -> None:
        if code == 0 or (self._stopping.is_set() and code in ENDED_BY_REQUEST):
            self.show(f"[INFO] [{process.name}]: process has finished cleanly [pid {pid}]")
        else:
            command = " ".join(process.command)
            self.show(f"[ERROR] [{process.name}]: process has died [pid {pid}, exit code {code}, cmd '{command}']")

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    # ---- ending

    def stop(self, reason: str) -> None:
        """Ask every process to end: SIGINT now, SIGTERM and SIGKILL for those that do not listen."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self.show(f"[INFO] [launch]: {reason}")
        loop = asyncio.get_running_loop()
        loop.call_later(SIGTERM_AFTER, self._raise_level, 2)
        loop.call_later(SIGKILL_AFTER, self._raise_level, 3)
        self._raise_level(1)

    def _on_signal(self, number: int) -> None:
        if not self._stopping.is_set():
            self.stop(f"{signal.Signals(number).name} received, asking every process to end")
        else:  # an impatient second or third time
            self._raise_level(min(self._level + 1, len(ESCALATION)))

    def _raise_level(self, level: int) -> None:
        if level <= self._level:
            return
        self._level = level
        if level > 1 and self._groups:
            self.show(f"[WARN] [launch]: processes still running, sending {ESCALATION[level - 1].name}")
        self._signal(ESCALATION[level - 1])

    def _signal(self, number: int) -> None:
        for group in list(self._groups):
            self._end_group(group, number)

    @staticmethod
    def _end_group(group: int, number: int) -> None:
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            pass

    def _register(self, group: int, sign: str) -> None:
        (self._groups.add if sign == "+" else self._groups.discard)(group)
        assert self._guard is not None and self._guard.stdin is not None
        try:
            self._guard.stdin.write(f"{sign}{group}\n")
            self._guard.stdin.flush()
        except BrokenPipeError:  # someone has killed the guard: go on without it
            pass
