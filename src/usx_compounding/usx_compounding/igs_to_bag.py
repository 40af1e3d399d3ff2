"""igs_to_bag: a tracked sequence of PLUS or 3D Slicer becomes an acquisition folder that the nodes replay."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from usx_compounding import command_line
from usx_compounding.recording import RecordingSettings, write_acquisition
from usx_compounding.sequence_files import read_sequence

DESCRIPTION = """Turn a tracked ultrasound sequence (IGSIO/PLUS) into an acquisition folder: bag/ (rosbag2 mcap with
us/image_raw and the transform world -> us_probe), params.yaml (calibration, mask, gates that fit the recording) and
acquisition.yaml. Poses that the tracker marked INVALID are left out and counted."""
EXAMPLES = """example:
  igs_to_bag SpinePhantomFreehand.igs.mha --calibration PlusDeviceSet.xml --out out/spine
  usx launch usx_bringup replay.launch.xml bag:=out/spine/bag"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser("igs_to_bag", description=DESCRIPTION, epilog=EXAMPLES,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    command_line.add_source_options(options)
    options.add_argument("--out", type=Path, required=True, metavar="DIR",
                         help="folder to make; must be empty or absent")
    options.add_argument("--spacing", type=float, default=0.5,
                         help="voxel edge for the replay, mm (default %(default)s)")
    options.add_argument("--delay", type=float, default=0.0, metavar="S",
                         help="tracker lag, s, as the temporal calibration gives it (default %(default)s)")
    options.add_argument("--quiet", action="store_true", help="no progress bar")
    return options


def convert(options: argparse.Namespace) -> None:
    """Do what the options say. Raises UsxError."""
    sequence = read_sequence(options.sequence)
    settings = RecordingSettings(command_line.calibration_of(options, sequence), command_line.mask_of(options),
                                 command_line.names_of(options), options.spacing, options.delay)
    with command_line.progress_bar("writing frames", options.quiet) as progress:
        written = write_acquisition(options.out, sequence, settings, options.sequence.name, progress)
    Console(soft_wrap=True).print(f"{options.out}: {written.frames} frames, {written.poses} poses, "
                                  f"{written.invalid} invalid poses left out")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``igs_to_bag``: 0, or 2 with one line of explanation."""
    options = parser().parse_args(arguments)
    return command_line.tell_errors(lambda: convert(options))


if __name__ == "__main__":
    raise SystemExit(main())
