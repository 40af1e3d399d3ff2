"""A simulated examination as the registration node hands it on: one cloud of the spine with labels and sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import SOURCE_ULTRASOUND, SOURCE_XRAY, label_of_level
from usx_completion.data.crop import CropSettings, observed_rows
from usx_completion.data.examination import Examination
from usx_completion.data.mean_chain import MeanChain
from usx_completion.data.observed import SeenPoints, XrayBody

STREAM = 0x4C41424C


def labels_of_points(observed: Examination, chain: MeanChain, crop: CropSettings, seed: int) -> NDArray[np.int64]:
    """(N,) 0 or 20..24 for the ultrasound points: that of the nearest mean vertebra placed on the X-ray's bodies.

    The truth has no part in it, whatever the crop rule of the settings.
    """
    return labels_by_bodies(observed.seen.points, observed.bodies, chain, crop, seed)


def labels_by_bodies(points: NDArray, bodies: Mapping[str, XrayBody], chain: MeanChain, crop: CropSettings, seed: int
                     ) -> NDArray[np.int64]:
    """See `labels_of_points`; ultrasound ``points`` (N, 3), mm."""
    random = np.random.default_rng(np.random.SeedSequence([STREAM, seed]))
    labels = np.zeros(len(points), dtype=np.int64)
    seen = SeenPoints(points, np.zeros(len(points), np.uint8))
    rows = observed_rows(seen, bodies, chain, replace(crop, rule="nearest_mean"), random)
    for level, mask in rows.items():
        labels[mask] = label_of_level(level)
    return labels


def joined(seen: NDArray, labels: NDArray, bodies: Mapping[str, NDArray]
           ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Points (M, 3) mm, labels and sources (M,) of ultrasound (N, 3) with labels (N,) and the X-ray's filled bodies."""
    clouds = [seen, *bodies.values()]
    names = [labels, *(np.full(len(cloud), label_of_level(level)) for level, cloud in bodies.items())]
    sources = np.full(sum(map(len, clouds)), SOURCE_XRAY)
    sources[: len(seen)] = SOURCE_ULTRASOUND
    return np.concatenate(clouds), np.concatenate(names).astype(np.int64), sources


def partial_spine(observed: Examination, chain: MeanChain, crop: CropSettings, seed: int
                  ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Points (M, 3) mm, labels and sources (M,) of an examination."""
    bodies = {level: body.filled for level, body in observed.bodies.items()}
    return joined(observed.seen.points, labels_of_points(observed, chain, crop, seed), bodies)
