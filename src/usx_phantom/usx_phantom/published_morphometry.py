"""Published sizes of lumbar vertebrae and discs: data/published_morphometry.csv, combined by one stated rule.

The rule, for each measure and level:

* A series counts with 25 people or more, and when it has both sexes; men and women count half each.
* An SD is taken as it is; a robust SD (from quartiles) where an automatic measurement has outliers; a standard error
  of a mean is multiplied by the root of n; of a range the SD is the range over its expected width in SDs (Wan et al.
  2014, BMC Med Res Methodol 14:135). The standard error of a meta-analysis is no SD: such a series gives a mean only.
* What is below 3 % or above 30 % of its mean cannot be the spread of people (a misprint, or an error of the mean that
  is called SD): such a series gives a mean only.
* The published mean is the mean of the series' means, each counting the same, because series differ by definition and
  modality far more than by the size of their sample. The published SD is the root mean square of the series' SDs: the
  spread within one series, without the spread between series.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.stats import norm

from usx_common.errors import UsxError

LEAST_PEOPLE = 25
PLAUSIBLE = (0.03, 0.30)
# Heights of neighbouring bodies of one person go together; discs do not follow them.
_NEIGHBOURS = 0.7
DISCS = ("L1-L2", "L2-L3", "L3-L4", "L4-L5")


@dataclass(frozen=True)
class Published:
    """Mean and SD (mm) of a measure at a level, and the series that gave them."""

    mean: float
    sd: float
    series: tuple[str, ...]


@cache
def published() -> dict[tuple[str, str], Published]:
    """(measure, level) -> published mean and SD; levels are L1..L5, of discs and of body spacing L1-L2..L4-L5."""
    path = Path(__file__).parent / "data" / "published_morphometry.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = combine(rows)
    heights = {level: [found["body_height_anterior", level], found["body_height_posterior", level]]
               for level in ("L1", "L2", "L3", "L4", "L5")}
    for name in DISCS:
        upper, lower = name.split("-")
        found["body_spacing", name] = _spacing([*heights[upper], *heights[lower]], found["disc_height", name])
    return found


def combine(rows: list[dict[str, str]]) -> dict[tuple[str, str], Published]:
    """The rule of this module on rows with the columns of the CSV file.

    Raises UsxError for a measure and level that no series gives a spread of.
    """
    series: dict[tuple[str, str], dict[str, list[dict[str, str]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        series[row["measure"], row["level"]][row["series"]].append(row)
    found = {}
    for key, by_series in series.items():
        kept = {name: value for name, value in ((n, _of_series(r)) for n, r in sorted(by_series.items())) if value}
        spreads = [sd for _, sd in kept.values() if sd is not None]
        if not spreads:
            raise UsxError(f"no series that counts gives the spread of {key[0]} at {key[1]}: add one, or leave it out")
        found[key] = Published(float(np.mean([mean for mean, _ in kept.values()])),
                               float(np.sqrt(np.mean(np.square(spreads)))), tuple(kept))
    return found


def _of_series(rows: list[dict[str, str]]) -> tuple[float, float | None] | None:
    """Mean and SD of one series, men and women half each; None where it does not count."""
    rows = [row for row in rows if row["n"] and int(row["n"]) >= LEAST_PEOPLE]
    sexes = {row["sex"] for row in rows}
    if "all" in sexes:
        rows = [row for row in rows if row["sex"] == "all"]
    elif sexes != {"M", "F"}:
        return None
    means = np.array([float(row["mean_mm"]) for row in rows])
    spreads = [_spread(row) for row in rows]
    known = [sd for sd in spreads if sd is not None]
    if len(known) < len(spreads):
        return float(means.mean()), None
    return float(means.mean()), float(np.sqrt(np.mean(np.square(known)) + means.var()))


def _spread(row: dict[str, str]) -> float | None:
    kind, n = row["dispersion_kind"], int(row["n"])
    if kind in ("none", "SE"):
        return None
    value = float(row["dispersion_mm"])
    if kind == "SEM":
        value *= float(np.sqrt(n))
    elif kind == "range":
        value /= 2.0 * float(norm.ppf((n - 0.375) / (n + 0.25)))
    elif kind not in ("SD", "robust SD"):
        raise UsxError(f"dispersion kind {kind!r} of {row['series']}: must be SD, robust SD, SEM, SE, range or none")
    low, high = PLAUSIBLE
    return value if low <= value / float(row["mean_mm"]) <= high else None


def _spacing(heights: list[Published], disc: Published) -> Published:
    """Distance of two body centres from published heights (anterior, posterior; upper, lower) and disc height."""
    upper, lower = (float(np.sqrt(np.mean([h.sd**2 for h in heights[i:i + 2]]))) for i in (0, 2))
    variance = 0.25 * (upper**2 + lower**2 + 2.0 * _NEIGHBOURS * upper * lower) + disc.sd**2
    mean = 0.5 * float(np.mean([h.mean for h in heights[:2]]) + np.mean([h.mean for h in heights[2:]])) + disc.mean
    return Published(mean, float(np.sqrt(variance)), ("from body heights and disc height",))
