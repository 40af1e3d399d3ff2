"""Seeds: one click in the middle of each vertebral body, with its label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from usx_common.levels import LEVEL_NAMES, level_of_label
from usx_xray.geometry import XrayGeometry
from usx_xray.refusal import Refused

CLOSEST_SEEDS_MM = 14.0
"""Two bodies' middles are a body height and a disc apart; closer seeds are taken to lie in one body."""


@dataclass(frozen=True)
class Seed:
    """``label``: 20..24 for L1..L5; ``column``, ``row``: pixels of the image, pixel centres at whole numbers."""

    label: int
    column: float
    row: float

    @property
    def level(self) -> str:
        return level_of_label(self.label)


def seeds_of_parameters(labels: Sequence[int], columns: Sequence[float], rows: Sequence[float]) -> list[Seed]:
    """Seeds of three lists of one length, sorted from L1 to L5. Raises Refused naming the parameter at fault."""
    if not len(labels) == len(columns) == len(rows):
        raise Refused("bad_seeds", f"seed_labels, seed_columns and seed_rows have {len(labels)}, {len(columns)} and "
                                   f"{len(rows)} entries; they must have one each per body")
    unknown = [label for label in labels if label not in LEVEL_NAMES]
    if unknown:
        raise Refused("bad_seeds", f"seed_labels holds {unknown[0]}; 20..24 stand for L1..L5")
    if len(set(labels)) < len(labels):
        repeated = next(label for label in labels if list(labels).count(label) > 1)
        raise Refused("bad_seeds", f"seed_labels names {level_of_label(repeated)} ({repeated}) twice")
    seeds = [Seed(int(label), float(column), float(row))
             for label, column, row in zip(labels, columns, rows, strict=True)]
    return sorted(seeds, key=lambda seed: seed.label)


def check_seeds(seeds: Sequence[Seed], shape: tuple[int, int], geometry: XrayGeometry) -> None:
    """Raises Refused for a seed outside of the image (``shape`` = rows, columns), or two too close for two bodies."""
    if not seeds:
        raise Refused("no_seeds", "there is no seed: click once into each vertebral body, L1 first, or set "
                                  "seed_labels, seed_columns and seed_rows")
    rows, columns = shape
    for seed in seeds:
        if not (np.isfinite([seed.column, seed.row]).all() and -0.5 <= seed.column < columns - 0.5
                and -0.5 <= seed.row < rows - 0.5):
            raise Refused("seed_outside_image", f"the seed of {seed.level} at column {seed.column:g}, row {seed.row:g} "
                                                f"lies outside of the image of {columns} x {rows} pixels")
    points = geometry.pixels_to_midplane(np.array([(seed.column, seed.row) for seed in seeds]))[:, :2]
    for first in range(len(seeds)):
        for second in range(first + 1, len(seeds)):
            distance = float(np.linalg.norm(points[first] - points[second]))
            if distance < CLOSEST_SEEDS_MM:
                raise Refused("two_seeds_in_one_body",
                              f"the seeds of {seeds[first].level} and {seeds[second].level} are {distance:.1f} mm "
                              "apart in the patient: they lie in one body; give one seed per body")


class ClickCollector:
    """Turns a series of clicks into seeds: the levels are given out from ``labels`` in the order of the clicks.

    Clicks go from cranial to caudal. A click closer than ``CLOSEST_SEEDS_MM`` to an earlier one corrects it; after the
    last label the next click begins anew.
    """

    def __init__(self, labels: Sequence[int]) -> None:
        self._labels = tuple(labels)
        self._seeds: list[Seed] = []

    @property
    def seeds(self) -> tuple[Seed, ...]:
        return tuple(self._seeds)

    def clear(self) -> None:
        """Forget all clicks."""
        self._seeds.clear()

    def click(self, column: float, row: float, geometry: XrayGeometry) -> Seed:
        """Take one click; the seed it became."""
        pixels = np.array([(seed.column, seed.row) for seed in self._seeds] + [(column, row)])
        points = geometry.pixels_to_midplane(pixels)[:, :2]
        distances = np.linalg.norm(points[:-1] - points[-1], axis=1)
        if len(distances) and distances.min() < CLOSEST_SEEDS_MM:
            place = int(distances.argmin())
            self._seeds[place] = Seed(self._seeds[place].label, column, row)
            return self._seeds[place]
        if len(self._seeds) == len(self._labels):
            self._seeds.clear()
        seed = Seed(self._labels[len(self._seeds)], column, row)
        self._seeds.append(seed)
        return seed
