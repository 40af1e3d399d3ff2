"""Vertebral bodies as the rest of the suite takes them: a cloud on the mid plane, and a label per pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from usx_xray.bodies import Body, filled
from usx_xray.geometry import XrayGeometry

MOST_POINTS_PER_BODY = 20_000
FINER = 8
"""Cells per grid step when looking which points of the grid lie inside."""


def bodies_to_points(bodies: Sequence[Body], geometry: XrayGeometry,
                     spacing: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The filled bodies as points (N, 3), mm, frame ``xray``, on the plane z = source_to_midplane; and labels (N,).

    A regular grid of ``spacing`` mm through the origin, coarser for a body that would have more than
    MOST_POINTS_PER_BODY: the projection of a body that the paper's method lays onto the patient's mid plane.
    """
    clouds, labels = [np.zeros((0, 3))], [np.zeros(0)]
    for body in bodies:
        plane = geometry.pixels_to_midplane(body.outline)[:, :2]
        inner = points_inside(plane, spacing)
        clouds.append(np.column_stack([inner, np.full(len(inner), geometry.source_to_midplane)]))
        labels.append(np.full(len(inner), float(body.label)))
    return np.concatenate(clouds), np.concatenate(labels)


def points_inside(outline: NDArray, spacing: float) -> NDArray[np.float64]:
    """(M, 2) points of the grid of ``spacing`` mm that lie inside of a closed outline (N, 2), mm."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    spacing = max(spacing, float(np.sqrt(np.prod(high - low) / MOST_POINTS_PER_BODY)))
    first = np.ceil(low / spacing).astype(int)
    count = np.maximum(np.floor(high / spacing).astype(int) - first + 1, 1)
    # Filling counts every pixel that the outline touches as inside: too many where a pixel is a whole grid step.
    mask = filled((outline / spacing - first) * FINER, (int(count[1]) * FINER, int(count[0]) * FINER))[::FINER, ::FINER]
    rows, columns = np.nonzero(mask)
    return (np.column_stack([columns, rows]) + first) * spacing


def label_image(bodies: Sequence[Body], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """(rows, columns) image with the label of the body at each pixel, 0 elsewhere."""
    labels = np.zeros(shape, np.uint8)
    for body in bodies:
        labels[filled(body.outline, shape)] = body.label
    return labels
