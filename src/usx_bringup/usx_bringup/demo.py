"""A phantom acquisition, the whole chain replayed through the nodes, a report with pictures and errors in mm."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from usx_bringup.acquisition import Recording, read_recording, read_truth
from usx_bringup.report import write_report
from usx_bringup.results import DATA, read_results
from usx_bringup.ros_command import ros_command
from usx_common.errors import UsxError

START_UP_S = 120.0
ANSWER_S = 90.0
SHUTDOWN_S = 15.0


@dataclass(frozen=True)
class Demo:
    """Where the acquisition is or goes, where the report goes, how fast to replay, whether to keep the view open."""

    acquisition: Path
    out: Path
    rate: float
    view: bool
    port: int
    patience: float
    method: str


def parse_arguments(arguments: list[str] | None = None) -> tuple[Demo, argparse.Namespace]:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        prog="demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  make demo\n  make demo ARGS=\"--seed 7 --out out/seed7\"\n"
               "  make demo ARGS=\"--meshes ../shared/data/shapes/verse008 --out out/verse008\"\n"
               "  make demo ARGS=\"--method shape_model --out out/fit\"\n"
               "  make demo ARGS=--view")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder of the report (default out/demo)")
    parser.add_argument("--acquisition", type=Path, help="replay this acquisition folder instead of making a phantom")
    parser.add_argument("--seed", type=int, default=1, help="which phantom person (default 1)")
    parser.add_argument("--meshes", type=Path, help="folder with L1..L5 as PLY or STL in mm: your own anatomy")
    parser.add_argument("--axes", choices=("RAS", "LPS"), default="RAS", help="axes of the meshes (default RAS)")
    parser.add_argument("--rate", type=float, default=1.0, help="speed of the replay (default 1 = real time)")
    parser.add_argument("--view", action="store_true", help="open the browser view and keep it until Ctrl-C")
    parser.add_argument("--port", type=int, default=8080, help="port of the browser view (default 8080)")
    parser.add_argument("--patience", type=float, default=30.0, metavar="S",
                        help="without an answer, give up so many seconds after the last frame (default 30)")
    parser.add_argument("--method", choices=("usx", "shape_model"), default="usx",
                        help="how vertebrae are completed: the project's network (default), or the shape model's fit")
    options = parser.parse_args(arguments)
    if not 0.05 <= options.rate <= 10.0:
        parser.error(f"--rate {options.rate} must be 0.05 .. 10")
    acquisition = options.acquisition or options.out / "acquisition"
    demo = Demo(acquisition, options.out, options.rate, options.view, options.port, options.patience,
                options.method)
    return demo, options


def make_phantom(demo: Demo, options: argparse.Namespace) -> None:
    """Make the phantom acquisition, or reuse it where the same one is there. Raises UsxError when that fails."""
    command = [*ros_command(), "run", "usx_phantom", "make_phantom", "--out", str(demo.acquisition),
               "--seed", str(options.seed), "--overwrite"]  # the folder is the demo's own
    if options.meshes:
        command += ["--meshes", str(options.meshes), "--axes", options.axes]
    if subprocess.run(command, check=False).returncode != 0:
        raise UsxError("the phantom acquisition was not made; see the message above")


@contextlib.contextmanager
def replay(demo: Demo) -> Iterator[subprocess.Popen[bytes]]:
    """The launch of replay.launch.xml as a child; its output goes to OUT/launch.log; it is ended on leaving."""
    command = [*ros_command(), "launch", "usx_bringup", "replay.launch.xml",
               f"bag:={(demo.acquisition / 'bag').resolve()}", f"save_folder:={(demo.out / 'saved').resolve()}",
               f"rate:={demo.rate}", f"viewer:={str(demo.view).lower()}", f"viewer_port:={demo.port}",
               f"method:={demo.method}"]
    with (demo.out / "launch.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign) if sign == signal.SIGKILL else process.send_signal(sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SHUTDOWN_S)
            return


def record(demo: Demo, recording: Recording, console: Console) -> int:
    """Run the recorder until the last frame is answered, with a progress bar of the frames; its exit code."""
    timeout = START_UP_S + recording.duration_s / demo.rate + ANSWER_S
    command = [*ros_command(), "run", "usx_bringup", "recorder", "--out", str(demo.out), "--frames",
               str(recording.frames), "--last-stamp", str(recording.last_stamp), "--timeout", f"{timeout:.0f}",
               "--patience", str(demo.patience)]
    columns = (TextColumn("{task.description}"), BarColumn(),
               TextColumn("{task.completed:.0f}/{task.total:.0f} frames"), TimeElapsedColumn())
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("replaying", total=recording.frames)
            for line in process.stdout or ():
                words = line.split()
                if words[:1] == ["progress"]:
                    progress.update(task, completed=int(words[1]), description=" ".join(words[2:]) or "replaying")
        return process.wait()
    finally:
        if process.poll() is None:  # interrupted: the recorder must not outlive the demo
            process.terminate()
            process.wait(SHUTDOWN_S)


def log_errors(log: Path, most: int = 6) -> list[str]:
    """The lines of a launch log in which a program says why it gave up."""
    return [line for line in log.read_text(errors="replace").splitlines() if "error: " in line][:most]


def run(demo: Demo, console: Console) -> int:
    """Replay, record, report; 0 when every level was completed."""
    recording = read_recording(demo.acquisition / "bag")
    demo.out.mkdir(parents=True, exist_ok=True)
    (demo.out / DATA).unlink(missing_ok=True)
    started = time.monotonic()
    with replay(demo) as launch:
        if demo.view:
            console.print(f"browser view: http://localhost:{demo.port}")
        code = record(demo, recording, console)
        if (demo.out / DATA).is_file():
            console.print(write_report(demo.out, read_results(demo.out), read_truth(demo.acquisition)))
            console.print(f"report: {demo.out / 'report.md'} ({time.monotonic() - started:.0f} s)")
        if code != 0:
            for line in log_errors(demo.out / "launch.log"):
                console.print(line, style="red", highlight=False, markup=False)
            console.print(f"the nodes' own words are in {demo.out / 'launch.log'}")
        if demo.view and code == 0:
            console.print(f"the view stays open at http://localhost:{demo.port}; Ctrl-C ends it")
            with contextlib.suppress(KeyboardInterrupt):
                launch.wait()
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Entry point: 0 = done, 1 = no complete answer, 2 = bad input."""
    demo, options = parse_arguments()
    console = Console()
    signal.signal(signal.SIGTERM, _interrupt)  # the launch must end with the demo, however the demo is told to end
    try:
        if options.acquisition is None:
            make_phantom(demo, options)
        return run(demo, console)
    except UsxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
