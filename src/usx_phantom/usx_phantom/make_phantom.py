"""make_phantom: an acquisition folder of a digital patient, sampled or made of real vertebrae."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from usx_common.errors import UsxError
from usx_phantom import acquisition, robot
from usx_phantom.acquisition import AcquisitionSettings
from usx_phantom.mesh_import import AXES
from usx_phantom.phantom_scene import build_scene
from usx_phantom.phantom_source import Source
from usx_phantom.posture import parse_posture
from usx_phantom.sweep import PATTERNS, SweepSettings
from usx_phantom.trouble import HELP, parse_trouble

DESCRIPTION = """Make a digital lumbar spine and everything that would be recorded of it in an operating room: a robot's
ultrasound sweep (rosbag2), a lateral X-ray (DICOM), a CBCT (DICOM series), the parameters that an operator knows
(params.yaml), and the truth for comparison. The same options and seed give the same folder. Not for medical use."""
# Raised whenever sampled spines change, so that folders made before are not taken for the same.
GENERATOR = 4
EXAMPLES = """examples:
  make_phantom --out out/phantom                          a sampled spine, seed 0, a sweep of 11 s
  make_phantom --seed 7 --out p7 --frames 60 --duration 6 a short acquisition of another person
  make_phantom --meshes DIR --axes RAS --out real         your own L1..L5 (.ply or .stl, mm)
  make_phantom --trouble drop=0.1,late=0.05,pose_gap=0.4 --out bad                   a bad recording
  make_phantom --labelmap sub-1_seg-vert_msk.nii.gz --ct sub-1_ct.nii.gz --out ct1   a real patient's scan
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser("make_phantom", description=DESCRIPTION, epilog=f"{HELP}\n{EXAMPLES}",
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="acquisition folder to make")
    p.add_argument("--seed", type=int, default=0, help="chooses the person, the noise and the errors (default 0)")
    p.add_argument("--meshes", type=Path, metavar="DIR",
                   help="folder with L1..L5 as .ply or .stl (mm, one common frame) instead of a sampled spine")
    p.add_argument("--axes", choices=sorted(AXES), default="RAS", help="axes of --meshes (default RAS)")
    p.add_argument("--labelmap", type=Path, metavar="FILE",
                   help="label map with 20..24 in L1..L5 (VerSe; NIfTI, NRRD, any orientation) instead")
    p.add_argument("--ct", type=Path, metavar="FILE",
                   help="CT of --labelmap, for X-ray, CBCT and ultrasound with real intensities")
    p.add_argument("--duration", type=float, metavar="S", help="length of the sweep in seconds (default 11)")
    p.add_argument("--frames", type=int, metavar="N",
                   help="number of frames; with --duration it sets the rate, alone it sets the duration")
    p.add_argument("--frame-rate", type=float, default=30.0, metavar="HZ", help="frames per second (default 30)")
    p.add_argument("--pattern", choices=PATTERNS, default="midline", help="way of the probe (default midline)")
    p.add_argument("--naming", choices=sorted(robot.NAMING), default="rolling",
                   help="robot frame and joint names, as in the versions of lbr_fri_ros2_stack (default rolling)")
    p.add_argument("--no-cbct", action="store_true", help="leave out the CBCT series")
    p.add_argument("--posture", default="", metavar="NAME=DEG,...",
                   help="bend the spine first: flexion, bending, rotation, scoliosis (Cobb angle; with the word double "
                        "an S), e.g. flexion=10,scoliosis=15; bones do not overlap")
    p.add_argument("--trouble", default="", metavar="NAME=VALUE,...",
                   help="make the recording bad in stated ways, see below (default: none)")
    p.add_argument("--overwrite", action="store_true", help="replace an acquisition made with other options")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    return p


def settings_of(options: argparse.Namespace) -> AcquisitionSettings:
    """Settings of parsed options. Raises UsxError naming the option that makes no sense."""
    if not 0 <= options.seed < 2**31:
        raise UsxError(f"--seed {options.seed}: must be 0 to 2147483647")
    if options.frames is not None and not 2 <= options.frames <= 20000:
        raise UsxError(f"--frames {options.frames}: must be 2 to 20000")
    duration, rate = options.duration, options.frame_rate
    if options.frames is not None and duration is not None:
        rate = options.frames / max(duration, 1e-9)
    elif options.frames is not None:
        duration = options.frames / max(rate, 1e-9)
    sweep = SweepSettings(duration=11.0 if duration is None else duration, frame_rate=rate, pattern=options.pattern)
    return AcquisitionSettings(options.seed, sweep, options.naming, not options.no_cbct, parse_trouble(options.trouble))


def source_of(options: argparse.Namespace) -> Source:
    """What the bones are made of. Raises UsxError for options that exclude each other."""
    return Source(options.seed, options.meshes, options.axes, options.labelmap, options.ct,
                  parse_posture(options.posture))


def is_made(folder: Path, settings: AcquisitionSettings, source: dict[str, Any]) -> bool:
    """Whether `folder` already holds this very acquisition."""
    try:
        made = yaml.safe_load((folder / "acquisition.yaml").read_text())
        return bool(made["format_version"] == acquisition.FORMAT_VERSION and made["source"] == source
                    and made.get("images") == acquisition.IMAGES
                    and made["settings"] == settings.as_dict() and (folder / "bag" / "metadata.yaml").is_file())
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return False


def make(options: argparse.Namespace, console: Console) -> None:
    """Make the acquisition unless it is there. Raises UsxError for bad input."""
    settings, source = settings_of(options), source_of(options)
    described = source.describe(GENERATOR)
    out: Path = options.out
    if is_made(out, settings, described):
        console.print(f"{out} is already this acquisition: reused")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not (out / "acquisition.yaml").is_file():
            raise UsxError(f"{out} exists and is no acquisition: choose another --out")
        if not options.overwrite:
            raise UsxError(f"{out} holds another acquisition: give --overwrite or another --out")
    columns = (TextColumn("{task.description:22}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=console, disable=options.quiet) as progress:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done)

        report("bones", 0, 2)
        bones = source.read()
        report("bones", 1, 2)
        scene = build_scene(bones.meshes, settings.seed, ct=bones.ct)
        report("bones", 2, 2)
        notes = acquisition.write_acquisition(scene, out, settings, described, report, bones.notes)
    for note in notes:
        console.print(note, soft_wrap=True, markup=False)
    console.print(f"{out}: {settings.sweep.frames} frames, {settings.sweep.duration:g} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 made or reused, 2 bad input (one line on stderr)."""
    options = parser().parse_args(arguments)
    # numba tries TBB first and says so where it is too old; it then takes OpenMP, which is as good here.
    warnings.filterwarnings("ignore", message="The TBB threading layer")
    try:
        make(options, Console())
    except (UsxError, OSError) as error:
        print(f"make_phantom: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
