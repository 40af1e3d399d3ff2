"""From folders of meshes to registered people: reading, registering, checking, weighing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_common.transforms import apply
from usx_completion.mesh_subjects import Subject, mirrored
from usx_completion.people import People, along_normals, analyse
from usx_completion.registration_cache import RegistrationTask, register_all
from usx_completion.rigid import align
from usx_completion.shape_model import ShapeModel
from usx_completion.surface_distance import surface_distances

GENERATED_WEIGHT = 0.25  # of a generated vertebra in the modes
FEWEST_FOR_OUTLIERS = 8  # vertebrae, mirrored copies included: among fewer, nobody can be told to be unusual
FIRST_GENERATED_SEED = 20_000  # apart from the packaged model's and the demonstrations' seeds


@dataclass(frozen=True)
class BuildSettings:
    """``mirror``: learn from mirrored copies too. ``largest_mean``: a mean of more people counts as this many.

    ``outlier``: a vertebra whose distance to its level's mean, size apart, exceeds the median of all by more than so
    many robust standard deviations is left out; infinity keeps all.
    """

    mirror: bool = True
    largest_mean: int = 20
    outlier: float = 3.5
    jobs: int = 1
    cache: Path = Path("out/registrations")


@dataclass(frozen=True)
class Registered:
    """``people``: the rows learned from. For each row ``targets`` (the mesh it was bent onto), ``names`` SUBJECT/LEVEL,
    ``posed`` (N,) whether its pose counts. ``dropped``: name and reason of what the robust rule left out."""

    people: People
    targets: list[Mesh]
    names: list[str]
    posed: NDArray[np.bool_]
    dropped: list[tuple[str, str]]


def register_subjects(subjects: Sequence[Subject], prior: ShapeModel, settings: BuildSettings,
                      generated: int = 0) -> Registered:
    """Bend the prior's mean vertebrae onto every mesh. ``generated``: spines of the phantom's generator added.

    Raises UsxError when fewer than three people are given.
    """
    real = [subject for subject in subjects if subject.people == 1]
    if len(real) < 3:
        raise UsxError(f"a shape model needs three people or more; {len(real)} were given")
    everything = _register(subjects, prior, settings, _generated(generated))
    return _without_outliers(everything, prior, settings.outlier)


def registered_only(subjects: Sequence[Subject], prior: ShapeModel, settings: BuildSettings) -> Registered:
    """The subjects registered, nothing mirrored and nothing left out: people to measure a model on."""
    return _register(subjects, prior, replace(settings, mirror=False), [])


def _register(subjects: Sequence[Subject], prior: ShapeModel, settings: BuildSettings,
              generated: Sequence[Subject]) -> Registered:
    rows = [(number, 0, 0, subject, level, mesh) for number, subject in enumerate(subjects)
            for level, mesh in subject.meshes.items()]
    if settings.mirror:
        rows += [(number, 1, 0, subject, level, mirrored(mesh)) for number, _, _, subject, level, mesh in rows]
    rows += [(len(subjects) + number, 0, 1, subject, level, mesh)
             for number, subject in enumerate(generated) for level, mesh in subject.meshes.items()]
    tasks = [RegistrationTask(prior.mean_mesh(level), mesh) for *_, level, mesh in rows]
    shapes = np.stack(register_all(tasks, settings.cache, settings.jobs))
    share = 0.5 if settings.mirror else 1.0
    mean_weights = [1.0 if group else share * min(subject.people, settings.largest_mean)
                    for _, _, group, subject, _, _ in rows]
    mode_weights = [GENERATED_WEIGHT if group else share * (subject.people == 1) for _, _, group, subject, _, _ in rows]
    numbers, copies, groups = (np.array([row[column] for row in rows]) for column in range(3))
    people = People(shapes, np.array([LEVELS.index(level) for *_, level, _ in rows]), numbers, copies, groups,
                    np.array(mean_weights), np.array(mode_weights))
    return Registered(people, [mesh for *_, mesh in rows],
                      [f"{subject.name}/{level}" for *_, subject, level, _ in rows],
                      np.array([subject.posed for _, _, _, subject, _, _ in rows]), [])


def registration_distances(registered: Registered, faces: NDArray[np.int32], row: int) -> NDArray[np.float64]:
    """(N,) distances in mm of a row's template vertices to its target, and of a third of the target's back."""
    shape, target = registered.people.shapes[row], registered.targets[row]
    return np.concatenate([surface_distances(shape, target),
                           surface_distances(target.vertices[::3], Mesh(shape, faces))])


def shape_distance(shape: NDArray, mean: NDArray, faces: NDArray[np.int32]) -> float:
    """Mean distance along the normals in mm between corresponding shapes (V, 3) once a similarity aligned them."""
    offsets = apply(align(shape, mean, scale=True), shape) - mean
    return float(np.abs(along_normals(offsets, mean, faces)).mean())


def _without_outliers(registered: Registered, prior: ShapeModel, limit: float) -> Registered:
    """Leave out vertebrae that differ from their level's mean, size apart, much more than others do.

    The modified z-score of Iglewicz and Hoaglin (How to Detect and Handle Outliers, 1993).
    """
    people = registered.people
    statistics = analyse(people, prior.body, 1)
    candidates = np.flatnonzero((people.groups == 0) & (people.mode_weights > 0.0))
    if len(candidates) < FEWEST_FOR_OUTLIERS:
        return registered
    distances = np.array([shape_distance(people.shapes[row], statistics.means[people.levels[row]], prior.faces)
                          for row in candidates])
    middle = float(np.median(distances))
    spread = 1.4826 * float(np.median(np.abs(distances - middle)))
    far = {registered.names[row]: distance for row, distance in zip(candidates, distances, strict=True)
           if distance > middle + limit * spread}
    kept = np.array([name not in far for name in registered.names])
    reasons = [(name, f"{distance:.2f} mm from its level's mean, size apart; median of all {middle:.2f} mm")
               for name, distance in sorted(far.items())]
    return Registered(people.rows(kept), [mesh for mesh, keep in zip(registered.targets, kept, strict=True) if keep],
                      [name for name, keep in zip(registered.names, kept, strict=True) if keep],
                      registered.posed[kept], reasons)


def _generated(count: int) -> list[Subject]:
    from usx_phantom.spine import sample_spine  # slow to import, and seldom needed

    return [Subject(f"generated{seed}", dict(sample_spine(seed).meshes))
            for seed in range(FIRST_GENERATED_SEED, FIRST_GENERATED_SEED + count)]
