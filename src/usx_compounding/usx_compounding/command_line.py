"""What the package's commands share: options for calibration, transforms and mask, progress, errors in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from usx_common.errors import UsxError
from usx_common.transforms import Matrix, parse_matrix
from usx_compounding.calibration import BadCalibration, read_calibration
from usx_compounding.mask import Fan, MaskSettings
from usx_compounding.sequence import Sequence
from usx_compounding.sequence_poses import TransformNames


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Options that say where a sequence's pixels lie."""
    parser.add_argument("sequence", type=Path, help="sequence file: .igs.mha, .igs.nrrd, .seq.nrrd")
    parser.add_argument("--calibration", type=Path, metavar="FILE",
                        help="PLUS configuration (.xml, Transform Image->Probe) or YAML with image_to_probe")
    parser.add_argument("--image-to-probe", type=float, nargs=16, metavar="N",
                        help="calibration as 16 numbers, row-major, pixels to mm")
    parser.add_argument("--probe", default="ProbeToTracker", metavar="NAME",
                        help="transform of the probe in the file (default %(default)s)")
    parser.add_argument("--reference", default="ReferenceToTracker", metavar="NAME",
                        help="transform of the reference in the file, which becomes world; '' = the tracker is world "
                             "(default %(default)s)")
    mask = parser.add_mutually_exclusive_group()
    mask.add_argument("--rectangle", type=int, nargs=4, metavar=("COL0", "ROW0", "COL1", "ROW1"),
                      help="use only this part of the image, pixels, last ones included")
    mask.add_argument("--fan", type=float, nargs=6, metavar=("COL", "ROW", "RMIN", "RMAX", "AMIN", "AMAX"),
                      help="use only this fan: apex and radii in pixels, angles in degrees from the +row axis")


def calibration_of(options: argparse.Namespace, sequence: Sequence) -> Matrix:
    """Image -> probe of the options or of the sequence. Raises UsxError saying what to give when there is none."""
    if options.image_to_probe is not None:
        return parse_matrix(options.image_to_probe, "--image-to-probe")
    if options.calibration is not None:
        return read_calibration(options.calibration)
    if "ImageToProbe" in sequence.transform_names():
        return sequence.transform("ImageToProbe", 0).a_to_b
    raise BadCalibration(f"{options.sequence} holds no ImageToProbe transform: give --calibration or --image-to-probe")


def mask_of(options: argparse.Namespace) -> MaskSettings:
    """Mask of the options."""
    if options.rectangle is not None:
        return MaskSettings("rectangle", rectangle=tuple(options.rectangle))
    if options.fan is not None:
        return MaskSettings("fan", fan=Fan(*options.fan))
    return MaskSettings()


def names_of(options: argparse.Namespace) -> TransformNames:
    """Names of the transforms, with or without the ending ``Transform``."""
    return TransformNames(options.probe.removesuffix("Transform"), options.reference.removesuffix("Transform"))


@contextmanager
def progress_bar(words: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal; yields a function of (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task(words, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def tell_errors(work: Callable[[], None]) -> int:
    """Exit code of ``work``: 0, or 2 after one line on stderr for what a user can mend."""
    try:
        work()
    except UsxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0
