"""Spines that are no samples of the shape model: the phantom's parametric ones, and real people from mesh files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_completion.data.layout import UNKNOWN_LICENCE
from usx_completion.data.spine_sample import SpineSample, change_posture
from usx_completion.xray_body import body_masks
from usx_phantom.body_frames import body_frames
from usx_phantom.mesh_import import read_spine
from usx_phantom.posture import PostureSpread

SUFFIXES = (".ply", ".stl")


class ParametricSpines:
    """Spines of the phantom's parametric generator: slower (about a second each), another kind of shape."""

    faces = None
    people = None
    licence = "Apache-2.0 (synthetic shapes only)"

    def __init__(self, first_seed: int = 0, deformations: int = 1, spacing_mm: float = 1.4) -> None:
        self._first, self._deformations, self._spacing = first_seed, deformations, spacing_mm

    @property
    def name(self) -> str:
        """Generator and spacing."""
        from usx_phantom.make_phantom import GENERATOR

        return (f"parametric revision {GENERATOR} first {self._first} deformations {self._deformations} "
                f"spacing {self._spacing:g}")

    def subject(self, index: int) -> str:
        """Name of the subject of a spine."""
        return f"parametric-{self._first + index // self._deformations}"

    def sample(self, index: int) -> SpineSample:
        """The spine of a number."""
        from usx_phantom.spine import sample_spine  # slow to import, and only this source needs it

        spine = sample_spine(self._first + index // self._deformations, spacing=self._spacing)
        sample = SpineSample(spine.meshes, spine.vertebra_to_patient, self.subject(index), body_masks(spine.meshes))
        deformation = index % self._deformations
        if deformation == 0:
            return sample
        return replace(change_posture(sample, PostureSpread(), self._first + index), deformation=deformation)


class MeshFolderSpines:
    """Real people: sub-folders of ``folder`` with L1..L5 as PLY or STL in one frame, one after the other.

    The first round shows them as they are, later rounds in postures that ``first_seed`` chooses. A sub-folder without
    all five levels is passed over and listed in ``skipped``. Raises UsxError when none has them, BadAnatomy when one is
    no lumbar spine in the ``axes`` named ("RAS" or "LPS").
    """

    faces = None
    licence = UNKNOWN_LICENCE  # a folder of meshes does not tell

    def __init__(self, folder: Path, axes: str = "RAS", first_seed: int = 0, only: Sequence[str] = ()) -> None:
        if not folder.is_dir():
            raise UsxError(f"mesh folder {folder} does not exist; it must hold one sub-folder with L1..L5 per subject")
        self._folder, self._axes, self._first = folder, axes, first_seed
        self._people: dict[str, dict[str, Mesh]] = {}
        self.skipped: list[str] = []
        for place in sorted(p for p in folder.iterdir() if p.is_dir() and (not only or p.name in only)):
            names = {p.stem.upper() for p in place.iterdir() if p.suffix.lower() in SUFFIXES}
            if names >= set(LEVELS):
                self._people[place.name] = read_spine(place, axes)
            else:
                self.skipped.append(place.name)
        if not self._people:
            raise UsxError(f"{folder} has no sub-folder with meshes of all of L1 to L5 (L1.ply .. L5.ply)")
        self._frames = {name: body_frames(meshes) for name, meshes in self._people.items()}
        self._bodies = {name: body_masks(meshes) for name, meshes in self._people.items()}

    @property
    def name(self) -> str:
        """Folder, axes and people."""
        return f"meshes {self._folder.name} {self._axes} first {self._first} {','.join(self._people)}"

    @property
    def people(self) -> list[str]:
        """Names of the people, in the order in which they come."""
        return list(self._people)

    def subject(self, index: int) -> str:
        """Name of the subject of a spine."""
        return self.people[index % len(self._people)]

    def sample(self, index: int) -> SpineSample:
        """The spine of a number."""
        subject, deformation = self.subject(index), index // len(self._people)
        meshes, bodies = self._people[subject], self._bodies[subject]
        sample = SpineSample(meshes, self._frames[subject], subject, bodies, deformation=deformation)
        return sample if deformation == 0 else change_posture(sample, PostureSpread(), self._first + index)
