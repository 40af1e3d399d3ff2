"""compound: a tracked sequence becomes a volume file, without ROS."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from usx_common.errors import UsxError
from usx_common.volumes import Volume
from usx_compounding import command_line
from usx_compounding.cells import COMBINATIONS, DISTRIBUTIONS, CellKind
from usx_compounding.compounding import Compounder, CompoundingSettings, Frames, filled_volume, make_engine
from usx_compounding.hole_filling import METHODS
from usx_compounding.mask import make_mask, run_corners, to_runs
from usx_compounding.region import scout
from usx_compounding.saving import FORMATS, save_volume
from usx_compounding.sequence_files import read_sequence
from usx_compounding.sequence_poses import place_frames

DESCRIPTION = """Compound a tracked ultrasound sequence (IGSIO/PLUS) into a volume of grey levels in the reference's
coordinates. A first pass over the poses finds the volume's box; the result does not depend on the order of the frames,
the number of threads or the device. Research use only; not a medical device."""
EXAMPLES = """examples:
  compound sweep.igs.mha volume.nrrd --calibration PlusDeviceSet.xml
  compound sweep.igs.mha volume.nii.gz --calibration PlusDeviceSet.xml --distribution linear --fill stick"""
FRAMES_AT_ONCE = 16


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser("compound", description=DESCRIPTION, epilog=EXAMPLES,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    command_line.add_source_options(options)
    options.add_argument("volume", type=Path, help=f"volume file to write: .{', .'.join(FORMATS)}")
    options.add_argument("--spacing", type=float, default=0.5, help="voxel edge, mm (default %(default)s)")
    options.add_argument("--distribution", choices=DISTRIBUTIONS, default="nearest", help="default %(default)s")
    options.add_argument("--combination", choices=COMBINATIONS, default="mean", help="default %(default)s")
    options.add_argument("--reject-below", type=int, default=0, metavar="GREY",
                         help="leave darker pixels out, 0 .. 255")
    options.add_argument("--fill", choices=METHODS, default="none", help="how to fill holes (default %(default)s)")
    options.add_argument("--fill-reach", type=int, default=9, metavar="VOXELS",
                         help="over how many (default %(default)s)")
    options.add_argument("--engine", choices=("numba", "torch"), default="numba", help="default %(default)s")
    options.add_argument("--device", default="cuda", help="device of the torch engine (default %(default)s)")
    options.add_argument("--threads", type=int, default=2, help="threads of the numba engine (default %(default)s)")
    options.add_argument("--memory-limit", type=float, default=2.0, metavar="GIB", help="GiB (default %(default)s)")
    options.add_argument("--quiet", action="store_true", help="no progress bar")
    return options


def reconstruct(options: argparse.Namespace, progress: Callable[[int, int], None]) -> Volume:
    """Volume that the options describe. Raises UsxError."""
    sequence = read_sequence(options.sequence)
    placed = place_frames(sequence, command_line.names_of(options))
    if not len(placed.numbers):
        raise UsxError(f"{options.sequence}: none of the {len(sequence)} frames has a good pose: {placed.rejected}")
    image_to_world = placed.image_to_world(command_line.calibration_of(options, sequence))
    runs = to_runs(make_mask(command_line.mask_of(options), *sequence.images.shape[1:]))
    lattice, region = scout(image_to_world, run_corners(runs), options.spacing)
    settings = CompoundingSettings(CellKind(options.distribution, options.combination), options.reject_below,
                                   round(options.memory_limit * 2**30))
    engine = make_engine(options.engine, options.threads, options.device)
    compounder = Compounder(settings, lattice, runs, engine, region)
    stamps = np.arange(len(placed.numbers), dtype=np.int64)
    for first in range(0, len(stamps), FRAMES_AT_ONCE):
        part = slice(first, first + FRAMES_AT_ONCE)
        compounder.add(Frames(sequence.images[placed.numbers[part]], image_to_world[part], stamps[part], stamps[part]))
        progress(min(part.stop, len(stamps)), len(stamps))
    engine.close()
    return filled_volume(compounder, options.fill, options.fill_reach)


def run(options: argparse.Namespace) -> None:
    """Do what the options say. Raises UsxError."""
    ending = next((kind for kind in FORMATS if options.volume.name.endswith(f".{kind}")), None)
    if ending is None:
        raise UsxError(f"{options.volume} is of an unknown kind: it must end in .{', .'.join(FORMATS)}")
    began = time.monotonic()
    with command_line.progress_bar("compounding", options.quiet) as progress:
        volume = reconstruct(options, progress)
    path = save_volume(options.volume.parent, options.volume.name[:-len(ending) - 1], ending, volume)
    nx, ny, nz = volume.grid.size
    Console().print(f"{path}: {nx} x {ny} x {nz} voxels of {options.spacing:g} mm, {time.monotonic() - began:.1f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``compound``: 0, or 2 with one line of explanation."""
    options = parser().parse_args(arguments)
    return command_line.tell_errors(lambda: run(options))


if __name__ == "__main__":
    raise SystemExit(main())
