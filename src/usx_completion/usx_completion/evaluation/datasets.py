"""Where cases come from: spines of the shape model, real people, and recorded acquisitions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from usx_common.errors import UsxError
from usx_completion.data.examination import examine, in_observed_frame
from usx_completion.data.mesh_spines import MeshFolderSpines
from usx_completion.data.presets import SampleSettings, preset_named
from usx_completion.data.spine_sample import centred
from usx_completion.data.spine_source import SPINES_PER_SEED, SourceChoice, SpineSource, mean_chain_of, open_source
from usx_completion.evaluation.acquisitions import acquisition_case
from usx_completion.evaluation.case import Case, CaseName, simulated_case
from usx_completion.evaluation.settings import DatasetSettings, EvaluationSettings

ACQUISITION = "acquisition"
MESHES = "meshes"  # asks for the people of --meshes alone, whose rows have the folder's name
MESH_PRESETS = ("paper", "realistic")


class CaseSource(Protocol):
    """A dataset: cases by number."""

    def case(self, number: int) -> Case:
        """Case ``number`` (0, 1, ...); the same number gives the same bytes."""


@dataclass(frozen=True)
class DatasetPlan:
    """What a worker needs to open a dataset: its ``name``, how many ``cases``, and one of: simulated ``settings`` with
    the ``folder`` of people where there are some (all its people, or those that the settings name), or ``recorded``
    folders."""

    name: str
    cases: int
    settings: DatasetSettings | None = None
    folder: Path | None = None
    axes: str = "RAS"
    recorded: tuple[Path, ...] = ()

    def open(self) -> CaseSource:
        """The dataset. Raises UsxError when its files are not usable."""
        if self.settings is None:
            return RecordedCases(self)
        return SimulatedCases(self, self.settings)


class SimulatedCases:
    """Examinations of true spines, of the shape model or of people."""

    def __init__(self, plan: DatasetPlan, settings: DatasetSettings) -> None:
        self._plan, self._seed = plan, settings.seed
        self._samples = SampleSettings(preset_named(settings.preset))
        if plan.folder is None:
            self.source: SpineSource = open_source(SourceChoice(seed=settings.seed))
        else:
            first = (settings.seed + 1) * SPINES_PER_SEED
            self.source = MeshFolderSpines(plan.folder, plan.axes, first, settings.people)
        self._chain = mean_chain_of(self.source)

    def case(self, number: int) -> Case:
        """Case of spine ``number``."""
        seed = self._seed * 2**32 + number
        spine = centred(self.source.sample(number))
        sample, observed = in_observed_frame(spine, examine(spine, self._samples, seed))
        return simulated_case(CaseName(self._plan.name, number), sample, observed, self._samples, self._chain, seed)


class RecordedCases:
    """What the nodes made of recorded acquisitions, one case a folder."""

    def __init__(self, plan: DatasetPlan) -> None:
        self._folders = plan.recorded

    def case(self, number: int) -> Case:
        """Case of the folder of a number."""
        return acquisition_case(CaseName(ACQUISITION, number), self._folders[number])


@dataclass(frozen=True)
class Wanted:
    """What was asked for: names of ``datasets`` (empty: all), the folders of people and acquisitions."""

    datasets: Sequence[str] = ()
    meshes: Path | None = None
    axes: str = "RAS"
    acquisitions: Sequence[Path] = ()
    quick: bool = False


def plan_datasets(settings: EvaluationSettings, wanted: Wanted) -> tuple[list[DatasetPlan], list[str]]:
    """The datasets to evaluate, in order, and a line on each that is left out.

    Raises UsxError for an unknown name, or when nothing is left.
    """
    known = [*settings.datasets, ACQUISITION, MESHES]
    for name in wanted.datasets:
        if name not in known:
            raise UsxError(f"dataset {name!r} is unknown; known are {', '.join(known)}")
    plans, notes = [], []
    for name, dataset in settings.datasets.items():
        if wanted.datasets and name not in wanted.datasets:
            continue
        folder, reason = _people_folder(dataset)
        if reason:
            notes.append(f"{name} is left out: {reason}")
            continue
        plans.append(DatasetPlan(name, dataset.quick_spines if wanted.quick else dataset.spines, dataset, folder))
    mesh_plans, mesh_notes = _mesh_plans(settings, wanted)
    plans, notes = plans + mesh_plans, notes + mesh_notes
    if wanted.acquisitions:
        folders = tuple(wanted.acquisitions)
        for folder in folders:
            acquisition_case(CaseName(ACQUISITION, 0), folder)  # a bad one is told now, and not after all the others
        plans.append(DatasetPlan(ACQUISITION, len(folders), recorded=folders))
    if MESHES in wanted.datasets and wanted.meshes is None:
        raise UsxError("dataset meshes needs --meshes DIR")
    if not wanted.acquisitions and (not wanted.datasets or ACQUISITION in wanted.datasets):
        notes.append("acquisition is left out: give --acquisition DIR, what `usx run usx_bringup demo --out DIR` wrote")
    if not plans:
        raise UsxError("there is nothing to evaluate: " + "; ".join(notes))
    return plans, notes


def _people_folder(dataset: DatasetSettings) -> tuple[Path | None, str]:
    """Folder of a dataset's people (None: it needs none), and why it is not there."""
    if not dataset.people:
        return None, ""
    data = os.environ.get("USX_DATA", "")
    folder = Path(data) / "shapes"
    missing = [name for name in dataset.people if not (folder / name).is_dir()]
    if not data or missing:
        return None, f"set USX_DATA to the folder that holds shapes/{missing[0] if data else dataset.people[0]}"
    return folder, ""


def _mesh_plans(settings: EvaluationSettings, wanted: Wanted) -> tuple[list[DatasetPlan], list[str]]:
    """Both presets on the people of --meshes, under the folder's name, or a longer one (and a line on it) where the
    settings have that name already."""
    if wanted.meshes is None:
        return [], []
    people = len(MeshFolderSpines(wanted.meshes, wanted.axes).people)
    postures = settings.quick_mesh_postures if wanted.quick else settings.mesh_postures
    asked = name = wanted.meshes.resolve().name.replace(",", "_").replace("|", "_") or MESHES
    while any(f"{name}-{preset}" in settings.datasets for preset in MESH_PRESETS):
        name = f"{name}-{MESHES}"
    notes = [] if name == asked else [f"rows of --meshes {wanted.meshes} are named {name}-paper and {name}-realistic: "
                                      f"{asked}-paper is a fixed dataset"]
    like = next(iter(settings.datasets.values()))
    return [DatasetPlan(f"{name}-{preset}", people * postures, replace(like, preset=preset, people=()), wanted.meshes,
                        wanted.axes) for preset in MESH_PRESETS], notes
