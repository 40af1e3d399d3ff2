"""Pictures to look at: an X-ray with the outlines of its bodies and with points of space projected into it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from usx_xray.bodies import Body
from usx_xray.refusal import Refused
from usx_xray.seeds import Seed
from usx_xray.xray_image import XrayImage

OUTLINE, SEED, POINT = (80, 220, 80), (60, 60, 255), (255, 190, 60)  # blue, green, red


def draw_overlay(image: XrayImage, bodies: Sequence[Body] = (), seeds: Sequence[Seed] = (),
                 points: NDArray | None = None) -> NDArray[np.uint8]:
    """(rows, columns, 3) picture, blue-green-red. ``points`` (N, 3), mm, frame ``xray``, are projected with the
    geometry: where they do not fall onto the anatomy, the geometry or the transform that brought them is wrong."""
    low, high = np.percentile(image.pixels, [1.0, 99.5])
    grey = np.clip((image.pixels - low) / max(high - low, 1e-9) * 255.0, 0.0, 255.0).astype(np.uint8)
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    if points is not None:
        for column, row in np.rint(image.geometry.points_to_pixels(points)).astype(int):
            cv2.circle(picture, (int(column), int(row)), 1, POINT, -1)
    scale = max(image.pixels.shape[0] / 1000.0, 0.5)
    for body in bodies:
        cv2.polylines(picture, [np.rint(body.outline * 16).astype(np.int32)[:, None]], True, OUTLINE,
                      max(round(2 * scale), 1), cv2.LINE_AA, shift=4)
        middle = np.rint(body.outline.mean(axis=0)).astype(int)
        cv2.putText(picture, body.level, (int(middle[0]), int(middle[1])), cv2.FONT_HERSHEY_SIMPLEX, scale, OUTLINE,
                    max(round(2 * scale), 1), cv2.LINE_AA)
    for seed in seeds:
        cv2.drawMarker(picture, (round(seed.column), round(seed.row)), SEED, cv2.MARKER_CROSS, round(20 * scale),
                       max(round(2 * scale), 1))
    return np.asarray(picture, np.uint8)


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a PNG or JPEG. Raises Refused naming the file when that fails."""
    try:
        done = cv2.imwrite(str(path), picture)
    except cv2.error:
        done = False
    if not done:
        raise Refused("cannot_write", f"the picture {path} cannot be written; give a .png in an existing folder")
