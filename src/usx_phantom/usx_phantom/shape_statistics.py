"""Numbers of the shape report: one sampled spine examined, means of samples, comparison with published sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_phantom.morphometry import MEASURES, SPINE_MEASURES, asymmetry, examine, measure_spine
from usx_phantom.published_morphometry import DISCS, published
from usx_phantom.shape_comparison import mean_surface_distance, similarity, similarity_fit
from usx_phantom.spine import SpineSettings, sample_spine
from usx_phantom.template import template_mesh

# A mean within so many published SDs, a spread within this factor of the published one.
MEAN_LIMIT, SPREAD_LIMIT = 1.0, 1.5


@dataclass(frozen=True)
class SampledSpine:
    """One sample: `measures` (measure, level) -> mm; by level `checks` (asymmetry mm, watertight, genus) and
    `aligned` (V, 3) float32 vertices laid on the level's mean by a similarity."""

    measures: dict[tuple[str, str], float]
    checks: dict[str, tuple[float, bool, int]]
    aligned: dict[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """One line of morphometry.csv (mm)."""

    measure: str
    level: str
    mean: float
    sd: float
    published_mean: float
    published_sd: float

    @property
    def within(self) -> bool:
        """Mean within one published SD, spread within a factor 1.5 of the published one."""
        return (abs(self.mean - self.published_mean) <= MEAN_LIMIT * self.published_sd
                and self.published_sd / SPREAD_LIMIT <= self.sd <= self.published_sd * SPREAD_LIMIT)


@dataclass(frozen=True)
class ShapeRow:
    """One line of shapes.csv; `sample` is the seed."""

    level: str
    sample: int
    to_population_mean: float
    asymmetry: float
    watertight: bool
    genus: int


def sampled_spine(seed: int, settings: SpineSettings | None = None) -> SampledSpine:
    """Sample and examine the spine of `seed`."""
    spine = sample_spine(seed, settings)
    examined = {level: examine(mesh) for level, mesh in spine.meshes.items()}
    checks, aligned = {}, {}
    for level in LEVELS:
        mesh = spine.local(level)
        checks[level] = (asymmetry(mesh), mesh.is_watertight, genus(mesh))
        aligned[level] = _laid(mesh.vertices, template_mesh(level).vertices).astype(np.float32)
    return SampledSpine(measure_spine(examined), checks, aligned)


def genus(mesh: Mesh) -> int:
    """Genus of a closed mesh of one piece, from Euler's formula."""
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    count = len(np.unique(edges.astype(np.int64) @ np.array([len(mesh.vertices), 1])))
    used = len(np.unique(mesh.faces))
    return (2 - (used - count + len(mesh.faces))) // 2


def _laid(vertices: np.ndarray, onto: np.ndarray) -> np.ndarray:
    fit = similarity(vertices, onto)
    return vertices @ fit[:3, :3].T + fit[:3, 3]


def mean_sample(level: str, aligned: Sequence[np.ndarray]) -> Mesh:
    """Mean of samples whose vertices correspond (generalised Procrustes mean, two rounds; Gower 1975)."""
    first = np.asarray(np.mean(np.stack(aligned), axis=0, dtype=np.float64))
    mean = np.mean([_laid(one.astype(np.float64), first) for one in aligned], axis=0)
    return Mesh(np.asarray(mean), template_mesh(level).faces)


def distance_to_mean(work: tuple[str, int, np.ndarray, Mesh]) -> float:
    """Mean symmetric surface distance (mm) of one sample to the mean, the mean scaled to the sample's size."""
    _, _, vertices, mean = work
    sample = Mesh(vertices.astype(np.float64), mean.faces)
    fitted = mean.transformed(similarity(mean.vertices, sample.vertices))
    return mean_surface_distance(fitted.transformed(similarity_fit(fitted, sample, 5)), sample, 15000, 2500)


def distance_after_fit(mean: Mesh, other: Mesh) -> float:
    """Mean symmetric surface distance (mm) after a similarity fit of `mean` to `other`, in the latter's scale."""
    return mean_surface_distance(mean.transformed(similarity_fit(mean, other)), other)


def compare_with_published(spines: Sequence[dict[tuple[str, str], float]]) -> list[Row]:
    """Rows for every measure and level that something is published of, in the order of the measures."""
    rows = []
    for measure in (*MEASURES, *SPINE_MEASURES):
        for level in (DISCS if measure in SPINE_MEASURES else LEVELS):
            known = published().get((measure, level))
            if known is not None:
                values = np.array([spine[measure, level] for spine in spines])
                rows.append(Row(measure, level, float(values.mean()), float(values.std(ddof=1)), known.mean, known.sd))
    return rows


def grid(rows: Sequence[Row]) -> list[list[str]]:
    """Cells of a table: a measure a line, a level (or the disc below it) a column; `!` marks what is outside."""
    lines = []
    for measure in dict.fromkeys(row.measure for row in rows):
        cells = {row.level[:2]: row for row in rows if row.measure == measure}
        lines.append([measure.replace("_", " "), *(_cell(cells.get(level)) for level in LEVELS)])
    return lines


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    mark = "" if row.within else " !"
    return f"{row.mean:.1f} {row.sd:.1f} ({row.published_mean:.1f} {row.published_sd:.1f}){mark}"


def shape_grid(shapes: Sequence[ShapeRow], to_mean_of_87: dict[str, float]) -> list[list[str]]:
    """Cells of the table of whole shapes: distances in mm, shares of closed meshes and of genus 1."""
    by_level = {level: [row for row in shapes if row.level == level] for level in LEVELS}

    def line(name: str, cell: object) -> list[str]:
        return [name, *(cell(by_level[level]) for level in LEVELS)]  # type: ignore[operator]

    lines = [
        line("to population mean", lambda r: _mean_range([one.to_population_mean for one in r])),
        line("left-right asymmetry", lambda r: _mean_range([one.asymmetry for one in r])),
        line("watertight, genus 1", lambda r: f"{sum(o.watertight and o.genus == 1 for o in r)} of {len(r)}"),
    ]
    if to_mean_of_87:
        lines.append(["mean sample to 87", *(f"{to_mean_of_87[level]:.2f}" if level in to_mean_of_87 else "-"
                                             for level in LEVELS)])
    return lines


def _mean_range(values: Sequence[float]) -> str:
    low, high = np.percentile(values, (5, 95))
    return f"{np.mean(values):.2f} ({low:.2f}-{high:.2f})"


def markdown(rows: Sequence[Row], shapes: Sequence[ShapeRow], to_mean_of_87: dict[str, float]) -> str:
    """The report's two tables in Markdown."""
    head = ["| | " + " | ".join(LEVELS) + " |", "|---|" + "---|" * len(LEVELS)]
    body = ["| " + " | ".join(cells) + " |" for cells in grid(rows)]
    more = ["| " + " | ".join(cells) + " |" for cells in shape_grid(shapes, to_mean_of_87)]
    within = sum(row.within for row in rows)
    count = len(shapes) // len(LEVELS)
    text = [f"Sampled mean and SD in mm of {count} spines, in brackets the published mean and SD; discs and spacing "
            f"stand under the upper level; `!` marks what is not within. {within} of {len(rows)} are within.", "",
            *head, *body, "", "Whole shapes, mm: mean (5 % to 95 %).", "", *head, *more, ""]
    return "\n".join(text)
