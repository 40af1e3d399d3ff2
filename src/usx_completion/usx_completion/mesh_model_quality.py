"""How good a shape model of people is: the tables that the build's report prints and writes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_common.transforms import apply
from usx_completion.contact import overlaps
from usx_completion.gaussian_process import Kernel, low_rank_basis
from usx_completion.landmarks import NAMES, find_landmarks, transferred
from usx_completion.leave_one_out import LeftOut, mean_error, process_fit
from usx_completion.mesh_build import Registered, registration_distances
from usx_completion.mesh_model import MeshModel, step_between
from usx_completion.rigid import align
from usx_completion.shape_model import ShapeModel
from usx_completion.spine_sampler import make_sampler, sample_model_spine
from usx_completion.spread_calibration import goal_amplitude, real_amplitude, sampled_amplitude

CHECK_SEED = 4711  # not the calibration's
CHECKED_SPINES = 100
JOINED_SPINES = 60
PROCESS_RANK = 800


@dataclass(frozen=True)
class Table:
    """A table: names of the columns, and rows of text or numbers (mm unless a name says otherwise)."""

    columns: tuple[str, ...]
    rows: list[tuple[str | int | float, ...]]


def registration_table(registered: Registered, model: ShapeModel, local: NDArray) -> Table:
    """Each mesh: symmetric surface distance between template and mesh, and the share of faces turned over."""
    rows: list[tuple[str | int | float, ...]] = []
    pooled = []
    for row in np.flatnonzero(registered.people.groups == 0):
        distances = registration_distances(registered, model.faces, int(row))
        pooled.append(distances)
        level = int(registered.people.levels[row])
        rows.append((registered.names[row], int(registered.people.copies[row]), float(distances.mean()),
                     float(np.percentile(distances, 95)), float(distances.max()),
                     flipped_share(local[row], model.means[level], model.faces)))
    every = np.concatenate(pooled)
    rows.append(("all", -1, float(np.mean([row[2] for row in rows])), float(np.percentile(every, 95)),
                 float(every.max()), float(np.mean([row[5] for row in rows]))))
    return Table(("mesh", "mirrored", "mean", "percentile_95", "worst", "flipped_share"), rows)


def flipped_share(vertices: NDArray, mean: NDArray, faces: NDArray) -> float:
    """Share of faces whose normals differ by more than 90 degrees between aligned shapes (V, 3) each."""
    def normals(points: NDArray) -> NDArray:
        corners = points[faces]
        return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return float(np.mean(np.einsum("fi,fi->f", normals(vertices), normals(mean)) < 0.0))


def landmark_table(registered: Registered, model: ShapeModel) -> Table:
    """Distance between a landmark found on a mesh and the one that the template's vertices carry there."""
    templates = [find_landmarks(Mesh(mean, model.faces)) for mean in model.means]
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    people = registered.people
    for row in np.flatnonzero((people.groups == 0) & (people.copies == 0)):
        try:
            own = find_landmarks(registered.targets[row])
        except UsxError:
            continue  # no canal to be seen: nothing to compare
        level = int(people.levels[row])
        carried = transferred(templates[level], Mesh(model.means[level], model.faces), people.shapes[row])
        for name in NAMES:
            if name in own.points and name in carried:
                found[name].append(float(np.linalg.norm(own.centre(name) - carried[name])))
    found["all"] = [value for values in found.values() for value in values]
    return Table(("landmark", "meshes", "median", "mean", "percentile_95", "worst"),
                 [(name, len(values), float(np.median(values)), float(np.mean(values)),
                   float(np.percentile(values, 95)), max(values)) for name, values in found.items() if values])


def generalisation_table(learned: MeshModel) -> Table:
    """What a model of the other people leaves over of a person, by number of modes, then with the smooth field."""
    left_out, model = learned.left_out, learned.model
    rows: list[tuple[str | int | float, ...]] = []
    levels = [(name, left_out.levels == index) for index, name in enumerate(LEVELS)]
    smooth = _with_process(left_out, model)
    for name, chosen in [*levels, ("all", np.full(len(left_out.levels), True))]:
        if not chosen.any():
            continue
        for column, count in enumerate(left_out.mode_counts):
            rows.append((name, int(chosen.sum()), str(count), float(left_out.vertex_mm[chosen, column].mean()),
                         float(left_out.normal_mm[chosen, column].mean())))
        rows.append((name, int(chosen.sum()), f"{left_out.mode_counts[-1]} + field", *smooth[chosen].mean(axis=0)))
    return Table(("level", "vertebrae", "modes", "vertex", "along_normal"), rows)


def explained_table(registered: Registered, model: ShapeModel) -> Table:
    """What the model leaves over of people kept out of it altogether, to the mean and with all modes, mm.

    Beside it what sampled vertebrae of the same levels have along the normal, and the ratio of sampled to real.
    """
    directions = model.modes.reshape(model.mode_count, -1)
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    sampled = sampled_amplitude(make_sampler(model), CHECKED_SPINES, CHECK_SEED)
    names, levels, found = [], [], []
    for row in np.flatnonzero(registered.people.copies == 0):
        level = int(registered.people.levels[row])
        mean, shape = model.means[level], registered.people.shapes[row]
        offset = (apply(align(shape, mean), shape) - mean).ravel()
        rest = offset - (directions @ offset) @ directions
        names.append(registered.names[row])
        levels.append(level)
        found.append((*mean_error(offset.reshape(-1, 3), mean, model.faces),
                      *mean_error(rest.reshape(-1, 3), mean, model.faces),
                      sampled.to_mean_mm[level], sampled.left_over_mm[level]))
    values, of_level = np.asarray(found), np.asarray(levels)
    groups = [(name, np.arange(len(names)) == row) for row, name in enumerate(names)]
    groups += [(name, of_level == level) for level, name in enumerate(LEVELS)] + [("all", of_level >= 0)]
    rows: list[tuple[str | int | float, ...]] = []
    for name, chosen in groups:
        if chosen.any():
            vertex, normal, rest_vertex, rest_normal, to_mean, left_over = values[chosen].mean(axis=0).tolist()
            rows.append((name, vertex, normal, to_mean, to_mean / normal, rest_vertex, rest_normal, left_over,
                         left_over / rest_normal))
    return Table(("mesh", "to_mean_vertex", "to_mean_normal", "sampled_to_mean", "to_mean_ratio", "left_over_vertex",
                  "left_over_normal", "sampled_left_over", "left_over_ratio"), rows)


def specificity_table(registered: Registered, learned: MeshModel, count: int = 40) -> Table:
    """Vertex distance of sampled shapes to the nearest shape learned from, beside that of real ones to each other."""
    people, model = registered.people, learned.model
    sampler, random = make_sampler(model), np.random.default_rng(CHECK_SEED)
    drawn = np.stack([sampler.shapes(random) for _ in range(count)])
    rows: list[tuple[str | int | float, ...]] = []
    for level, name in enumerate(LEVELS):
        chosen = np.flatnonzero((people.levels == level) & (people.groups == 0) & (people.mode_weights > 0.0))
        if len(chosen) == 0:
            continue
        known = learned.statistics.local[chosen]
        sampled = [min(_distance(shape, other) for other in known) for shape in drawn[:, level]]
        if len(np.unique(people.subjects[chosen])) < 2:
            continue  # nobody to compare a real one with
        real = [min(_distance(known[i], known[j]) for j in range(len(chosen))
                    if people.subjects[chosen[j]] != people.subjects[chosen[i]])
                for i in range(len(chosen)) if people.copies[chosen[i]] == 0]
        rows.append((name, len(real), float(np.mean(sampled)), float(np.mean(real))))
    return Table(("level", "vertebrae", "sampled_to_nearest_real", "real_to_nearest_other"), rows)


def compactness_table(model: ShapeModel) -> Table:
    """Share of the modes' variance that the first ones hold."""
    variance = np.sum(model.modes.reshape(model.mode_count, -1) ** 2, axis=1) * np.mean(model.mode_sd**2, axis=0)
    variance = np.sort(variance)[::-1]
    share = np.cumsum(variance) / variance.sum()
    return Table(("modes", "share_of_variance"), [(mode + 1, float(value)) for mode, value in enumerate(share)])


def spread_table(learned: MeshModel) -> Table:
    """Sampled shapes against people left out: distance to the mean and to the modes along the normal, and ratios.

    The goals are what the levels' numbers are drawn to, which the sampled ones were scaled to: that they agree shows
    that the calibration converged, and no more.
    """
    real = real_amplitude(learned.left_out)
    sampled = sampled_amplitude(make_sampler(learned.model), CHECKED_SPINES, CHECK_SEED)
    goal = goal_amplitude(learned.left_out)
    columns = ((real.to_mean_mm, goal.to_mean_mm, sampled.to_mean_mm),
               (real.left_over_mm, goal.left_over_mm, sampled.left_over_mm))
    counts = [int(np.sum(learned.left_out.levels == level)) for level in range(len(LEVELS))]
    rows: list[tuple[str | int | float, ...]] = []
    for name, count, chosen in [*((name, counts[level], [level]) for level, name in enumerate(LEVELS)),
                                ("mean", sum(counts), list(range(len(LEVELS))))]:
        means = [[float(values[chosen].mean()) for values in three] for three in columns]
        rows.append((name, count, *(value for three in means for value in (*three, three[2] / three[0]))))
    return Table(("level", "vertebrae", "to_mean_left_out", "to_mean_goal", "to_mean_sampled", "to_mean_ratio",
                  "left_over_left_out", "left_over_goal", "left_over_sampled", "left_over_ratio"), rows)


def joint_table(model: ShapeModel) -> Table:
    """How neighbours of sampled spines sit: overlap left (mm), and mean steps against the model's (y, z: mm)."""
    sampler = make_sampler(model)
    depths, steps = [], []
    for seed in range(JOINED_SPINES):
        spine = sample_model_spine(sampler, seed)
        shapes = np.stack([spine.local(level).vertices for level in LEVELS])
        poses = np.stack([spine.vertebra_to_patient[level] for level in LEVELS])
        depths.append(overlaps(shapes, sampler.normals(shapes), poses))
        steps.append([step_between(upper, lower) for upper, lower in pairwise(poses)])
    shift = np.mean(steps, axis=0) - model.step_mean
    found = np.asarray(depths)
    limit = sampler.settings.overlap_mm
    rows: list[tuple[str | int | float, ...]] = [
        (f"{upper}-{lower}", float(found[:, gap].mean()), float(found[:, gap].max()),
         float(np.mean(found[:, gap] > limit)), float(shift[gap, 4]), float(shift[gap, 5]),
         float(np.degrees(shift[gap, 0])))
        for gap, (upper, lower) in enumerate(pairwise(LEVELS))]
    return Table(("joint", "overlap_mean", "overlap_worst", "share_above_limit", "step_shift_y", "step_shift_z",
                  "step_shift_degrees_x"), rows)


def _with_process(left_out: LeftOut, model: ShapeModel) -> NDArray[np.float64]:
    """(N, 2) vertex and normal error when the smooth field too follows the left-out shape."""
    spread = model.spread
    kernels = [Kernel(width, float(np.sqrt(share)))
               for width, share in zip(spread.kernel_width_mm, spread.kernel_share, strict=True)]
    basis = low_rank_basis(model.means.mean(axis=0), kernels, PROCESS_RANK)
    result = np.empty((len(left_out.rows), 2))
    for row, (offsets, level) in enumerate(zip(left_out.offsets, left_out.levels, strict=True)):
        rest = process_fit(offsets, basis, spread.process_sd_mm[level])
        result[row] = mean_error(rest, model.means[level], model.faces)
    return result


def _distance(shape: NDArray, other: NDArray) -> float:
    return float(np.linalg.norm(apply(align(shape, other), shape) - other, axis=1).mean())
