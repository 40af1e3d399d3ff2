"""inspect_dicom: what usx makes of a DICOM file or folder, and why it refuses what it refuses."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from usx_common.errors import UsxError
from usx_xray import ct_series
from usx_xray.bodies import segment_bodies
from usx_xray.body_points import bodies_to_points
from usx_xray.ct_bone import bone_surface
from usx_xray.dicom_file import read_header
from usx_xray.folder_watch import is_temporary
from usx_xray.geometry import GeometryOverrides
from usx_xray.overlay import draw_overlay, write_picture
from usx_xray.refusal import Refused
from usx_xray.seeds import Seed, seeds_of_parameters
from usx_xray.xray_image import XrayImage, xray_of_header

EPILOG = """examples:
  inspect_dicom ACQ/xray/lateral.dcm                          geometry of one X-ray, or the reason why it is refused
  inspect_dicom ACQ/cbct                                      a CT series: size, spacing, bone points
  inspect_dicom x.dcm --params ACQ/params.yaml --png x.png    bodies at the seeds of a parameter file, drawn
  inspect_dicom x.dcm --seed 20,605,320 --seed 21,637,485     bodies at seeds given here (label,column,row)
  inspect_dicom x.dcm --source-to-midplane 800 --detector-spacing 0.2 0.2    supply what the file lacks

exit code: 0 when everything was accepted, 1 when something was refused, 2 for a mistake in the command line.
No name or other mark of the patient is printed."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    console = Console()
    try:
        return _inspect(options, console)
    except UsxError as error:
        print(f"inspect_dicom: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="inspect_dicom", description=__doc__, epilog=EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="DICOM file, or folder that is searched with its subfolders")
    parser.add_argument("--png", type=Path, help="write the X-ray with seeds and outlines into this picture")
    parser.add_argument("--params", type=Path, help="ROS parameter file with seed_labels, seed_columns, seed_rows")
    parser.add_argument("--seed", action="append", default=[], metavar="LABEL,COLUMN,ROW",
                        help="seed in one body: label 20..24 for L1..L5, column and row in pixels; may be repeated")
    parser.add_argument("--source-to-detector", type=float, default=0.0, metavar="MM", help="SID in mm")
    parser.add_argument("--source-to-midplane", type=float, default=0.0, metavar="MM",
                        help="distance of the patient's mid plane from the source in mm")
    parser.add_argument("--detector-spacing", type=float, nargs=2, default=(), metavar=("ROW", "COLUMN"),
                        help="pixel spacing at the detector in mm")
    parser.add_argument("--principal-point", type=float, nargs=2, default=(), metavar=("COLUMN", "ROW"),
                        help="where the principal ray meets the image, in pixels")
    return parser


def _inspect(options: argparse.Namespace, console: Console) -> int:
    files = _files(options.path)
    overrides = GeometryOverrides(options.source_to_detector, options.source_to_midplane,
                                  tuple(options.detector_spacing), tuple(options.principal_point))
    seeds = _seeds(options)
    series: dict[str, list[ct_series.Slice]] = {}
    refused = 0
    for path in track(files, description="reading", console=console, disable=len(files) < 20, transient=True):
        try:
            header = read_header(path)
            if str(header.get("Modality", "")) in ct_series.MODALITIES:
                series.setdefault(str(header.get("SeriesInstanceUID", "")), []).extend(
                    ct_series.slices_of(path, header))
                continue
            _show_xray(path, xray_of_header(path, header, overrides), seeds, options.png, console)
        except Refused as error:
            refused += 1
            console.print(f"[red]refused[/red]  {path}: {error} ({error.reason})", highlight=False, soft_wrap=True)
    for slices in series.values():
        refused += not _show_series(slices, console)
    return 1 if refused else 0


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsxError(f"{path} is neither a file nor a folder")
    files = sorted(file for file in path.rglob("*") if file.is_file() and not is_temporary(file.name))
    if not files:
        raise UsxError(f"the folder {path} holds no files")
    return files


def _seeds(options: argparse.Namespace) -> list[Seed]:
    if options.params is not None:
        return _seeds_of_file(options.params)
    try:
        rows = [[float(number) for number in text.split(",")] for text in options.seed]
        labels, columns, places = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
        return seeds_of_parameters([int(label) for label in labels], columns, places)
    except (ValueError, TypeError) as error:
        if isinstance(error, UsxError):
            raise
        raise UsxError(f"--seed {' '.join(options.seed)}: each must be LABEL,COLUMN,ROW") from error


def _seeds_of_file(path: Path) -> list[Seed]:
    try:
        content = yaml.safe_load(path.read_text())
        for name, node in content.items():
            values = node.get("ros__parameters", {})
            if name.endswith("xray_node") and "seed_labels" in values:
                return seeds_of_parameters(values["seed_labels"], values["seed_columns"], values["seed_rows"])
    except OSError as error:
        raise UsxError(f"parameter file {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise UsxError(f"{path} is no ROS parameter file with seed_labels, seed_columns and seed_rows") from error
    raise UsxError(f"{path} holds no seeds for xray_node")


def _show_xray(path: Path, image: XrayImage, seeds: list[Seed], picture: Path | None, console: Console) -> None:
    geometry = image.geometry
    rows, columns = image.pixels.shape
    table = Table(title=f"X-ray {path}", title_justify="left", show_header=False)
    facts = [("modality", image.modality), ("size", f"{columns} columns x {rows} rows"),
             ("grey values", f"{image.pixels.min():g} .. {image.pixels.max():g}"),
             ("fx, fy", f"{geometry.focal[0]:.2f}, {geometry.focal[1]:.2f} pixels"),
             ("cx, cy", f"{geometry.principal_point[0]:.2f}, {geometry.principal_point[1]:.2f} pixels"),
             ("magnification", f"{geometry.magnification:.4f}"),
             ("pixel in the mid plane", "{:.4f} x {:.4f} mm (column, row)".format(*geometry.midplane_spacing))]
    for name, value in facts:
        table.add_row(name, value)
    for note in (*geometry.notes, *image.notes):
        table.add_row("", note)
    console.print("[green]accepted[/green]")
    console.print(table)
    found = segment_bodies(image.pixels, geometry, seeds) if seeds else None
    if found is not None:
        points, labels = bodies_to_points(found.bodies, geometry)
        for body in found.bodies:
            extent = np.ptp(points[labels == body.label, :2], axis=0)
            console.print(f"  {body.level}: {extent[0]:.1f} x {extent[1]:.1f} mm, {(labels == body.label).sum()} "
                          f"points, confidence {body.confidence:.0%}", highlight=False)
        for _, sentence in found.problems:
            console.print(f"  [yellow]{sentence}[/yellow]", highlight=False)
    if picture is not None:
        write_picture(picture, draw_overlay(image, found.bodies if found else (), seeds))
        console.print(f"  picture: {picture}", highlight=False)


def _show_series(slices: list[ct_series.Slice], console: Console) -> bool:
    try:
        volume = ct_series.series_of_slices(slices, ct_series.SeriesLimits()).volume
        points = bone_surface(volume)
    except Refused as error:
        console.print(f"[red]refused[/red]  CT series of {len(slices)} slices: {error} ({error.reason})",
                      highlight=False, soft_wrap=True)
        return False
    table = Table(title=f"CT series of {len(slices)} slices", title_justify="left", show_header=False)
    table.add_row("size (x, y, z)", " x ".join(str(count) for count in volume.grid.size))
    table.add_row("spacing", " x ".join(f"{step:.4g}" for step in volume.grid.spacing) + " mm")
    table.add_row("first voxel (LPS)", ", ".join(f"{value:.2f}" for value in volume.grid.origin) + " mm")
    table.add_row("values", f"{volume.values.min()} .. {volume.values.max()} HU")
    table.add_row("bone surface", f"{len(points)} points")
    console.print("[green]accepted[/green]")
    console.print(table)
    return True


if __name__ == "__main__":
    sys.exit(main())
