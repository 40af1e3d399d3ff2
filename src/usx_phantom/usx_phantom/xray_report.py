"""xray_report: how true the simulated radiograph and CBCT are: a table of measurements, and pictures.

Contrast to noise on a real device: 2.13 to 7.23 in 36 lateral lumbar radiographs of an anthropomorphic phantom (Lai,
Reis and Sun, "Effective dose and image optimisation of lateral lumbar spine radiography: a phantom study", Eur. Radiol.
Exp. 4, 13, 2020).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from usx_common.errors import UsxError
from usx_common.volumes import Volume, VolumeGrid
from usx_phantom import cbct, xray
from usx_phantom.anatomy import middle_level
from usx_phantom.checks import check_whole
from usx_phantom.density import XrayScene, label_bounds
from usx_phantom.detector import noise_share
from usx_phantom.phantom_scene import body_centres, build_scene
from usx_phantom.phantom_source import Source
from usx_phantom.scene import Scene
from usx_phantom.spine import sample_spine
from usx_phantom.xray_measure import (
    bead_error,
    contrasts,
    edge_transfer,
    noise_ratios,
    sphere_error,
)
from usx_phantom.xray_pictures import draw_planes, draw_radiographs
from usx_phantom.xray_settings import XraySettings

DESCRIPTION = """Measure the simulated radiograph against closed forms and the geometry in its own DICOM file, and draw
it: of a sampled spine, or of a real CT beside the same patient's label map. Writes xray_report.csv and pictures of the
radiographs and of the CBCT into --out. Not for medical use."""
EXAMPLES = """examples:
  xray_report --out out/xray                              a sampled spine, seed 0
  xray_report --out out/xray --ct CT.nii.gz --labelmap MASK.nii.gz   real anatomy (HU; labels 20..24 = L1..L5,
                                                          three of them are enough)
"""
COLUMNS = ("what", "value", "unit", "expected")


@dataclass(frozen=True)
class Row:
    """One line of the table; `expected` says what it should be and where that comes from."""

    what: str
    value: float
    unit: str
    expected: str


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser("xray_report", description=DESCRIPTION, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to (made when missing)")
    p.add_argument("--ct", type=Path, metavar="FILE", help="CT in Hounsfield units (.nii.gz, .nrrd, .mha)")
    p.add_argument("--labelmap", type=Path, metavar="FILE", help="its vertebrae (VerSe labels), needed with --ct")
    p.add_argument("--seed", type=int, default=0, help="chooses the person and the noise (default 0)")
    return p


def device_rows(settings: XraySettings, seed: int) -> list[Row]:
    """What depends on the device alone."""
    ratios = noise_ratios(settings, seed)
    return [
        Row("bead in the picture against the DICOM file's geometry, worst", bead_error(seed, settings), "pixels",
            "< 0.1"),
        Row("integral through a sphere against its chord of 22 to 44 mm, worst", sphere_error(), "mm",
            "< 0.2"),
        Row("edge transfer at 0.5 line pairs/mm", edge_transfer(settings, 0.5), "", f"{_transfer(settings, 0.5):.3f}"),
        Row("edge transfer at 1 line pair/mm", edge_transfer(settings, 1.0), "", f"{_transfer(settings, 1.0):.3f}"),
        Row("variance over mean of even fields, mean", float(ratios.mean()), "", f"{noise_share(settings):.3f}"),
        Row("variance over mean, spread of brightness 1 to 0.0025", float(np.ptp(ratios) / ratios.mean()), "",
            "0 (< 0.05)")]


def scene_rows(name: str, scene: XrayScene, settings: XraySettings, seed: int) -> list[Row]:
    """What depends on the patient."""
    bodies = contrasts(scene, settings, seed)
    if not bodies:
        raise UsxError("the label map holds no lumbar body (labels 20..24) within the picture: nothing to measure")
    return [
        Row(f"{name}: water added by a lumbar body, mean", float(np.mean([b.path for b in bodies])), "mm", ""),
        Row(f"{name}: contrast of a body, primary", float(np.mean([b.primary for b in bodies])), "", ""),
        Row(f"{name}: contrast of a body, with scatter", float(np.mean([b.total for b in bodies])), "",
            "less than the former"),
        Row(f"{name}: contrast to noise of a body, one pixel", float(np.mean([b.to_noise for b in bodies])), "",
            "2.1 to 7.2: a phantom on a real device")]


def _transfer(settings: XraySettings, cycles: float) -> float:
    """Transfer of focal spot, pixel and scintillator by hand."""
    shadow = settings.focal_spot * (settings.source_to_detector / settings.source_to_isocentre - 1.0)
    return float(np.sinc(shadow * cycles) * np.sinc(settings.spacing * cycles)
                 / (1.0 + (1.0 / settings.detector_mtf - 1.0) * cycles**2))


def make(options: argparse.Namespace, console: Console) -> list[Path]:
    """Measure, draw and write; returns the files. Raises UsxError for bad input."""
    seed = check_whole("--seed", options.seed)
    if (options.ct is None) != (options.labelmap is None):
        raise UsxError("--ct and --labelmap belong together: give both, or neither for a sampled spine")
    settings, scenes = XraySettings(), _scenes(options, seed)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = device_rows(settings, seed)
    for name, scene in scenes.items():
        rows += scene_rows(name, scene, settings, seed)
    _print(rows, console)
    first = next(iter(scenes.values()))
    pictures = {f"from the {name}": xray.simulate_lateral(scene, settings, seed) for name, scene in scenes.items()}
    centres = body_centres(first.labelmap)
    name = "xray_from_ct" if options.ct else "xray_from_labels"
    middle = centres[middle_level(first.meshes)]
    return [_write(rows, options.out / "xray_report.csv"),
            draw_radiographs(pictures, centres, options.out / f"{name}.png"),
            draw_planes(cbct.simulate(first, seed=seed), middle, options.out / f"{name.replace('xray', 'cbct')}.png")]


def _scenes(options: argparse.Namespace, seed: int) -> dict[str, Scene]:
    """The patient as a CT shows it, and as its label map does; without files, a sampled spine and a CT made of it."""
    if options.ct is not None:
        bones = Source(labelmap=options.labelmap, ct=options.ct, complete=False).read()
        scene = build_scene(bones.meshes, seed, ct=bones.ct)
        return {"CT": scene, "label map": replace(scene, intensities=None)}
    meshes = sample_spine(seed).meshes
    sampled = build_scene(meshes, seed)
    return {"label map": sampled, "CT made of it": build_scene(meshes, seed, ct=narrow_ct(sampled, seed))}


def narrow_ct(scene: XrayScene, seed: int) -> Volume:
    """A CT of a scene that is cut close to the bones, as those of spines often are, HU."""
    settings = cbct.CbctSettings(spacing=0.8, diameter=180.0, blur=0.4, noise=20.0, cupping=0.0, truncation=0.0)
    volume = cbct.simulate(scene, settings, seed)
    low, high = label_bounds(scene.labelmap)
    first = np.maximum(np.floor((low - 14.0 - volume.grid.origin) / volume.grid.spacing).astype(int), 0)
    last = np.minimum(np.ceil((high + 14.0 - volume.grid.origin) / volume.grid.spacing).astype(int) + 1,
                      volume.grid.size)
    part = volume.values[first[2]:last[2], first[1]:last[1], first[0]:last[0]]
    return Volume(part, VolumeGrid(volume.grid.origin + first * volume.grid.spacing, volume.grid.spacing,
                                   tuple((last - first).tolist())))


def _print(rows: list[Row], console: Console) -> None:
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(row.what, f"{row.value:.3g}", row.unit, row.expected)
    console.print(table)


def _write(rows: list[Row], path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((row.what, f"{row.value:.4g}", row.unit, row.expected) for row in rows)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 written, 2 bad input (one line on stderr)."""
    options = parser().parse_args(arguments)
    console = Console()
    try:
        for path in make(options, console):
            console.print(str(path))
    except (UsxError, OSError) as error:
        print(f"xray_report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
