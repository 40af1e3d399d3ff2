"""Vertebrae from label maps: VerSe and other BIDS folders, any orientation, one closed mesh per lumbar level.

VerSe: Sekuboyina et al., Medical Image Analysis 73, 2021; labels 20 to 24 are L1 to L5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import LEVELS, label_of_level
from usx_common.meshes import Mesh
from usx_common.volumes import FILE_KINDS, Volume
from usx_phantom.anatomy import BadAnatomy, check_order, check_posterior, check_proportions, check_size
from usx_phantom.mask_surface import mask_surface
from usx_phantom.scan_files import BadScan, read_scan

MASK_PATTERN = "*_seg-vert_msk.nii.gz"
MESH_STEP = 1.0  # mm
LEAST_VOXELS = 200
# A vertebra is cut where its section in the last plane of the volume is larger than this part of its largest section
# along that axis. Tips that just touch the edge have 0.05 at most; half a body has 0.9.
CUT_SHARE = 0.2
HINT = "is the array transposed, or the header's spacing or affine that of another file?"


@dataclass(frozen=True)
class LabelledSpine:
    """Lumbar vertebrae of a label map.

    `meshes`: level -> closed Mesh, mm, LPS, in the file's own world. `labels`: the volume, axes in LPS order.
    `genus`: level -> handles of its mesh (1: nothing but the canal). `at_edge`: levels that touch the edge of the
    volume, so a tip of them may be missing. `missing`: levels that the file does not hold. `cut`: levels that it
    holds but the edge clearly cuts; they are no bones to learn from and left out of the rest.
    """

    meshes: dict[str, Mesh]
    labels: Volume
    genus: dict[str, int]
    at_edge: tuple[str, ...]
    missing: tuple[str, ...]
    cut: tuple[str, ...] = ()

    @property
    def edge_note(self) -> str:
        """One line on levels at the edge of the volume; empty where there are none."""
        notes = [f"{', '.join(self.at_edge)} at the edge of the volume, so tips may be missing"] if self.at_edge else []
        notes += [f"{', '.join(self.cut)} cut by the edge of the volume and left out"] if self.cut else []
        return "; ".join(notes)


def read_labelmap(path: Path, step: float = MESH_STEP, complete: bool = False) -> LabelledSpine:
    """Vertebrae L1..L5 (labels 20..24, others are ignored) of a label map; `step`: mesh size, mm.

    Raises BadScan (file, header, no such label, labels that are not whole numbers) or BadAnatomy naming the file and
    level: with `complete` a level missing or cut by the edge of the volume, else all; sizes or order that are not those
    of a spine in mm, a spinous process that does not point to the back. A mirrored volume cannot be told from a real
    one.
    """
    if not 0.3 <= step <= 4.0:
        raise BadScan(f"mesh step {step} mm: must be 0.3 to 4")
    path = Path(path)
    labels = read_scan(path)
    found = _levels(path, labels)
    missing = tuple(level for level in LEVELS if level not in found)
    if complete and missing:
        raise BadAnatomy(f"{path} lacks {', '.join(missing)}; all of L1 to L5 are needed")
    meshes, genus = {}, {}
    sections = {level: edge_share(labels.values == label_of_level(level)) for level in found}
    cut = tuple(level for level in found if sections[level] > CUT_SHARE)
    if cut and (complete or len(cut) == len(found)):
        told = ", ".join(f"{level} (there it is {sections[level]:.0%} of its largest section)" for level in cut)
        raise BadAnatomy(f"{path}: the edge of the volume cuts {told}; whole vertebrae are needed")
    whole = [level for level in found if level not in cut]
    for level in whole:
        mask = (labels.values == label_of_level(level)).transpose(2, 1, 0)
        surface = mask_surface(mask, labels.grid.spacing, step)
        mesh = Mesh(surface.mesh.vertices @ labels.grid.direction.T + labels.grid.origin, surface.mesh.faces)
        if np.linalg.det(labels.grid.direction) < 0.0:
            mesh = Mesh(mesh.vertices, mesh.faces[:, ::-1])
        name = f"{path}: {level}"
        check_size(name, mesh)
        check_proportions(name, mesh, HINT)
        meshes[level], genus[level] = mesh, surface.genus
    check_order(str(path), meshes)
    check_posterior(str(path), meshes, "those of the file's affine", HINT)
    at_edge = tuple(level for level in whole if sections[level] > 0.0)
    return LabelledSpine(meshes, labels, genus, at_edge, missing, cut)


def edge_share(mask: NDArray[np.bool_]) -> float:
    """Largest section of `mask` (any order of axes) in an end plane of its volume, as a part of the largest section
    along that axis: 0 where it stays off the edge, 0 for an empty mask."""
    sections = [mask.sum(tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    return max(float(max(counts[0], counts[-1]) / max(counts.max(), 1)) for counts in sections)


def find_labelmaps(source: Path) -> dict[str, Path]:
    """Subject -> label map: `source` itself, or every vertebra mask under a BIDS folder.

    A subject with several masks (VerSe's `split` scans) gets one entry each, named with the split.
    Raises BadScan where there is none.
    """
    source = Path(source)
    if source.is_file():
        return {_subject(source): source}
    if not source.is_dir():
        raise BadScan(f"{source} does not exist")
    paths = sorted(source.rglob(MASK_PATTERN))
    if not paths:
        raise BadScan(f"{source} holds no {MASK_PATTERN}: give a BIDS folder of VerSe, or one label map file")
    found: dict[str, Path] = {}
    for path in paths:
        name = _subject(path)
        if name in found:
            raise BadScan(f"{source} holds {name} twice ({found[name]} and {path}): import them one by one")
        found[name] = path
    return found


def _subject(path: Path) -> str:
    name = path.name
    for kind in FILE_KINDS:
        name = name.removesuffix(kind)
    entities = re.match(r"(sub-[A-Za-z0-9]+)(?:_(split-[A-Za-z0-9]+))?", name)
    return "_".join(part for part in entities.groups() if part) if entities else name


def _levels(path: Path, labels: Volume) -> list[str]:
    values = labels.values
    if not np.issubdtype(values.dtype, np.integer) and not _whole(values):
        raise BadScan(f"{path} holds values that are not whole numbers: it is an image, not a label map")
    present = {int(v) for v in np.unique(values[values > 0])}
    levels = [level for level in LEVELS if label_of_level(level) in present]
    if not present:
        raise BadScan(f"{path} is empty: no voxel is labelled")
    if not levels:
        raise BadScan(f"{path} holds no lumbar level (labels 20 to 24, as in VerSe); it holds "
                      f"{', '.join(map(str, sorted(present)[:12]))}")
    for level in levels:
        count = int((values == label_of_level(level)).sum())
        if count < LEAST_VOXELS:
            raise BadAnatomy(f"{path}: {level} has {count} voxels only; a vertebra has {LEAST_VOXELS} or more")
    return levels


def _whole(values: NDArray) -> bool:
    return bool(np.isfinite(values).all() and (values == np.rint(values)).all())
