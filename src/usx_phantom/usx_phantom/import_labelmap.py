"""import_labelmap: vertebra meshes L1..L5 of label maps (VerSe, BIDS), checked for axes, units and levels."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from usx_common.errors import UsxError
from usx_common.meshes import read_mesh, sample_surface, write_mesh
from usx_phantom.labelmap_import import MESH_STEP, LabelledSpine, find_labelmaps, read_labelmap
from usx_phantom.mesh_import import AXES
from usx_phantom.overlap import BoneSurface

DESCRIPTION = """Make closed meshes L1..L5 of label maps with VerSe's numbering (20..24 = L1..L5; others are ignored).
Each subject gets a folder DIR/SUBJECT with L1.ply .. L5.ply in millimetres, usable by `make_phantom --meshes` and by
`build_shape_model --meshes`, and import.csv lists them all. Any orientation and order of axes is read by the file's own
affine; a wrong one is refused as far as anatomy tells: L5 caudal, spinous processes to the back, sizes in mm. A
mirrored volume looks like another person and cannot be told."""
EXAMPLES = """examples:
  import_labelmap --in sub-verse008_seg-vert_msk.nii.gz --out out/verse    one subject: out/verse/sub-verse008/L1.ply ..
  import_labelmap --in dataset-verse19training --out out/verse --complete  a BIDS folder, whole spines only
"""
COLUMNS = ("subject", "level", "file", "vertices", "genus", "extent_left_right_mm", "extent_front_back_mm",
           "extent_head_foot_mm", "touches_edge")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser("import_labelmap", description=DESCRIPTION, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--in", dest="source", type=Path, required=True, metavar="FILE|BIDS_FOLDER",
                   help="a label map (NIfTI, NRRD, MetaImage), or a folder with *_seg-vert_msk.nii.gz in it")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder that the subjects' folders go to")
    p.add_argument("--axes", choices=sorted(AXES), default="RAS",
                   help="axes of the meshes written (default RAS, what make_phantom --meshes assumes)")
    p.add_argument("--step", type=float, default=MESH_STEP, metavar="MM", help="mesh size (default 1 mm)")
    p.add_argument("--complete", action="store_true", help="leave out subjects that lack a level")
    p.add_argument("--compare", type=Path, metavar="DIR",
                   help="L1..L5 of the same patient made otherwise (axes of --axes): print how far the meshes differ")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def run(options: argparse.Namespace, console: Console) -> int:
    """Import everything; returns how many subjects were written. Raises UsxError where none could be."""
    found = find_labelmaps(options.source)
    rows: list[dict[str, object]] = []
    reasons: list[str] = []
    for subject, path in track(found.items(), "importing", console=console, disable=options.quiet or len(found) == 1):
        try:
            spine = read_labelmap(path, options.step, options.complete)
        except UsxError as error:
            reasons.append(str(error))
            console.print(f"left out: {error}", soft_wrap=True, markup=False)
            continue
        if options.compare is not None:
            console.print(distances(spine, options.compare, options.axes), soft_wrap=True)
        folder = options.out / subject
        rows += write_spine(spine, folder, subject, options.axes)
        notes = [spine.edge_note] if spine.edge_note else []
        notes += [f"no {', '.join(spine.missing)}"] if spine.missing else []
        console.print(f"{folder}: {', '.join(spine.meshes)}{''.join(f'; {note}' for note in notes)}", soft_wrap=True,
                      markup=False)
    if not rows:
        raise UsxError(reasons[0] if len(reasons) == 1 else
                       f"none of {len(reasons)} label maps could be imported; the first: {reasons[0]}")
    with (options.out / "import.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return len({row["subject"] for row in rows})


def write_spine(spine: LabelledSpine, folder: Path, subject: str, axes: str) -> list[dict[str, object]]:
    """Write L*.ply of a spine to `folder` (made if needed); returns the rows of import.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    for level, mesh in spine.meshes.items():
        path = folder / f"{level}.ply"
        write_mesh(path, mesh.transformed(AXES[axes]), comment=f"{subject} {level}, mm, {axes}")
        extent = np.ptp(mesh.vertices, axis=0)
        rows.append(dict(zip(COLUMNS, (subject, level, f"{subject}/{level}.ply", len(mesh.vertices),
                                       spine.genus[level], *(f"{v:.1f}" for v in extent),
                                       "yes" if level in spine.at_edge else "no"), strict=True)))
    return rows


def distances(spine: LabelledSpine, folder: Path, axes: str) -> str:
    """Mean symmetric surface distance (mm) of each level to the mesh of that name in `folder`, in words."""
    words = []
    for level, mesh in spine.meshes.items():
        other = read_mesh(folder / f"{level}.ply").transformed(np.linalg.inv(AXES[axes]))
        pairs = ((mesh, other), (other, mesh))
        mean = np.mean([np.abs(BoneSurface(a, level).signed_distance(sample_surface(b, 10000, 0))[0]).mean()
                        for a, b in pairs])
        words.append(f"{level} {mean:.2f}")
    return f"mean surface distance to {folder}, mm: {', '.join(words)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, or 2 for bad input (one line on stderr)."""
    options = parser().parse_args(arguments)
    try:
        run(options, Console())
    except (UsxError, OSError) as error:
        print(f"import_labelmap: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
