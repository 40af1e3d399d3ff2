"""What a phantom's bones are made of: a sampled spine, a folder of meshes, a label map, or a CT with its label map."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_common.volumes import Volume, VolumeGrid
from usx_phantom.ct_scan import read_ct
from usx_phantom.labelmap_import import read_labelmap
from usx_phantom.mesh_import import SUFFIXES, centring_shift, read_spine
from usx_phantom.patient_motion import warped
from usx_phantom.posture import PostureChange
from usx_phantom.scan_files import memory_watched, read_scan
from usx_phantom.spine import sample_spine
from usx_phantom.spine_chain import change_posture
from usx_phantom.voxels import label_meshes

# Kinds of volume files whose voxels may lie in another file.
DETACHED = (".mhd", ".nrrd")
LEAST_LEVELS = 3  # the skin's curve along the back is that of a parabola


@dataclass(frozen=True)
class Bones:
    """`meshes`: L1..L5 (fewer only of an incomplete label map), mm, LPS, the middle one near the origin; `ct`: their CT
    (HU, int16) in the same frame, or None; `notes`: what could not be done as wanted and what is not whole, a line
    each."""

    meshes: dict[str, Mesh]
    ct: Volume | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """One of: nothing (a spine sampled with `seed`), `meshes` (folder, with its `axes`), `labelmap` (file) with or
    without its `ct` (file); then bent by `posture`. `complete`: a label map must hold all of L1..L5, else three of them
    are enough. Raises UsxError for combinations that make no sense."""

    seed: int = 0
    meshes: Path | None = None
    axes: str = "RAS"
    labelmap: Path | None = None
    ct: Path | None = None
    posture: PostureChange = field(default_factory=PostureChange)
    complete: bool = True

    def __post_init__(self) -> None:
        if self.meshes is not None and self.labelmap is not None:
            raise UsxError("--meshes and --labelmap both say what the bones are: give one")
        if self.ct is not None and self.labelmap is None:
            raise UsxError("--ct needs the label map of its vertebrae: give --labelmap too")
        if not self.complete and self.posture.as_dict():
            raise UsxError("a posture is that of a whole spine: all of L1 to L5 are needed")

    def describe(self, generator: int) -> dict[str, Any]:
        """Plain words for acquisition.yaml: a fingerprint of the files where the bones are real, else the seed and
        the revision `generator` of the code that samples spines; the posture where it was changed."""
        words = self._origin(generator)
        return {**words, "posture": self.posture.as_dict()} if self.posture.as_dict() else words

    def read(self) -> Bones:
        """The bones, and the CT in their frame. Raises UsxError for bad files."""
        bones = self._read()
        if not self.posture.as_dict():
            return bones
        meshes, difference = change_posture(bones.meshes, self.posture)
        with memory_watched(self.ct or "the spine"):
            ct = None if bones.ct is None else warped(bones.ct, label_meshes(meshes), difference)
        given_up = (f"posture: {difference.message}",) if difference.message else ()
        return Bones(meshes, ct, (*bones.notes, *given_up))

    def _origin(self, generator: int) -> dict[str, Any]:
        if self.meshes is not None:
            files = sorted(self.meshes.iterdir()) if self.meshes.is_dir() else []
            digest = _digest((path, path.name) for path in files if path.suffix.lower() in SUFFIXES)
            return {"kind": "meshes", "axes": self.axes, "sha256": digest}
        if self.labelmap is not None:
            paths = [self.labelmap] if self.ct is None else [self.labelmap, self.ct]
            return {"kind": "labelmap" if self.ct is None else "ct",
                    "sha256": _digest((path, "") for path in paths if path.is_file())}
        return {"kind": "parametric", "seed": self.seed, "generator": generator}

    def _read(self) -> Bones:
        if self.meshes is not None:
            return Bones(read_spine(self.meshes, self.axes))
        if self.labelmap is None:
            return Bones(sample_spine(self.seed).meshes)
        with memory_watched(self.labelmap):
            spine = read_labelmap(self.labelmap, complete=self.complete)
        if len(spine.meshes) < LEAST_LEVELS:
            raise UsxError(f"{self.labelmap} holds {', '.join(spine.meshes)} only; {LEAST_LEVELS} levels are needed")
        shift = centring_shift(spine.meshes)
        meshes = {level: Mesh(mesh.vertices + shift, mesh.faces) for level, mesh in spine.meshes.items()}
        notes = (f"{self.labelmap}: {edge}",) if (edge := spine.edge_note) else ()
        if self.ct is None:
            return Bones(meshes, notes=notes)
        ct = read_ct(self.ct, spine.labels)
        ct = Volume(ct.values, VolumeGrid(ct.grid.origin + shift, ct.grid.spacing, ct.grid.size))
        return Bones(meshes, ct, notes)


def _digest(files: Iterable[tuple[Path, str]]) -> str:
    digest = hashlib.sha256()
    for path, name in files:
        digest.update(name.encode() + path.read_bytes())
        # The header alone says nothing about voxels in a file beside it.
        if path.suffix.lower() in DETACHED:
            digest.update(read_scan(path).values.tobytes())
    return digest.hexdigest()
