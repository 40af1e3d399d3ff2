"""Vertebral bodies of a lateral X-ray from one seed per body."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from usx_common.levels import level_of_label
from usx_xray.box_chain import choose_chain
from usx_xray.box_fit import Box, candidate_boxes
from usx_xray.geometry import XrayGeometry
from usx_xray.outline import Outline, trace_outline
from usx_xray.patches import EDGE_SCALE_MM, PlaneImage
from usx_xray.refusal import Refused
from usx_xray.seeds import Seed, check_seeds

OVERLAP_LIMIT = 0.25
"""Share of the smaller body that may lie in its neighbour; more means that both seeds found one body."""
DARK_BONE_ADVANTAGE = 1.3
"""How much better than bright bone dark bone must fit before it is believed."""


@dataclass(frozen=True)
class Body:
    """One vertebral body: ``label`` 20..24; ``outline`` (N, 2) closed, pixels (column, row), sub-pixel;
    ``confidence`` 0 .. 1: by how much the share of the outline that is darker outside exceeds that of mere chance."""

    label: int
    outline: NDArray[np.float64]
    confidence: float

    @property
    def level(self) -> str:
        return level_of_label(self.label)


@dataclass(frozen=True)
class Segmentation:
    """Bodies from cranial to caudal, and why seeds have none: ``problems`` holds (reason, sentence) pairs."""

    bodies: tuple[Body, ...]
    problems: tuple[tuple[str, str], ...] = ()


def segment_bodies(pixels: NDArray, geometry: XrayGeometry, seeds: Sequence[Seed], minimum_confidence: float = 0.4,
                   polarity: float = 0.0) -> Segmentation:
    """Outline the body around each seed.

    ``pixels``: (rows, columns) any real type; ``polarity``: 1 bone bright, -1 bone dark, 0 find out. Raises Refused
    when a seed lies outside of the image, or two seeds lie in one body. A body that is cut by the border of the image
    or whose outline is less certain than ``minimum_confidence`` is left out and told in ``problems``.
    """
    seeds = sorted(seeds, key=lambda seed: seed.label)
    check_seeds(seeds, pixels.shape, geometry)
    if not np.isfinite(pixels).all():
        raise Refused("bad_pixel_data", "the image holds values that are not finite")
    image = PlaneImage(np.ascontiguousarray(pixels, np.float32), geometry).blurred(EDGE_SCALE_MM)
    points = geometry.pixels_to_midplane(np.array([(seed.column, seed.row) for seed in seeds]))[:, :2]
    sign, boxes = _boxes(image, points, [seed.label for seed in seeds], polarity)
    outlines = [trace_outline(image, box, sign) for box in boxes]
    _check_overlap(seeds, outlines)
    return _judged(seeds, outlines, geometry, minimum_confidence)


def spine_axes(points: NDArray) -> NDArray[np.float64]:
    """(N, 2) direction of the spine (cranial to caudal) at seeds ``points`` (N, 2); rows of the image for one seed."""
    if len(points) == 1:
        return np.array([[0.0, 1.0]])
    return np.gradient(points, axis=0, edge_order=2 if len(points) > 2 else 1)


def _boxes(image: PlaneImage, points: NDArray, labels: list[int], polarity: float) -> tuple[float, list[Box]]:
    axes = spine_axes(points)
    adjacent = [second - first == 1 for first, second in itertools.pairwise(labels)]
    results = {}
    for sign in (1.0, -1.0) if polarity == 0.0 else (polarity,):
        candidates = [candidate_boxes(image, point, axis, sign) for point, axis in zip(points, axes, strict=True)]
        boxes = choose_chain(candidates, adjacent)
        results[sign] = (sum(box.score for box in boxes), boxes)
    best = max(results, key=lambda sign: results[sign][0] * (DARK_BONE_ADVANTAGE if sign > 0 else 1.0))
    return best, results[best][1]


def _check_overlap(seeds: Sequence[Seed], outlines: list[Outline]) -> None:
    for first in range(len(seeds)):
        for second in range(first + 1, len(seeds)):
            share = overlap_share(outlines[first].points, outlines[second].points)
            if share > OVERLAP_LIMIT:
                raise Refused("two_seeds_in_one_body",
                              f"the bodies found at the seeds of {seeds[first].level} and {seeds[second].level} "
                              f"overlap by {share:.0%}: give one seed per body, near its middle")


def overlap_share(first: NDArray, second: NDArray, resolution: float = 4.0) -> float:
    """Common area of two closed outlines (N, 2), mm, as a share of the smaller one's."""
    low = np.minimum(first.min(axis=0), second.min(axis=0))
    size = np.ceil((np.maximum(first.max(axis=0), second.max(axis=0)) - low) * resolution).astype(int) + 3
    masks = [filled((outline - low) * resolution + 1.0, (int(size[1]), int(size[0]))) for outline in (first, second)]
    return float((masks[0] & masks[1]).sum() / max(min(masks[0].sum(), masks[1].sum()), 1))


def filled(outline: NDArray, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask (rows, columns) of the pixels inside of a closed outline (N, 2) of (column, row)."""
    mask = np.zeros(shape, np.uint8)
    shift = 8
    fixed = np.rint(np.asarray(outline) * 2**shift).astype(np.int32)
    cv2.fillPoly(mask, [fixed[:, None, :]], 1, lineType=cv2.LINE_8, shift=shift)
    return mask.astype(bool)


def _judged(seeds: Sequence[Seed], outlines: list[Outline], geometry: XrayGeometry,
            minimum_confidence: float) -> Segmentation:
    bodies, problems = [], []
    for seed, outline in zip(seeds, outlines, strict=True):
        confidence = float(np.clip(2.0 * (outline.darkening > 0.0).mean() - 1.0, 0.0, 1.0))
        if not outline.inside_image:
            problems.append(("body_at_image_border", f"{seed.level}: the body reaches beyond the border of the image"))
        elif confidence < minimum_confidence:
            problems.append(("no_clear_outline", f"{seed.level}: no convincing outline around the seed (confidence "
                                                 f"{confidence:.0%}); click nearer to the middle of the body"))
        else:
            pixels = outline.points / geometry.midplane_spacing + np.array(geometry.principal_point)
            bodies.append(Body(seed.label, pixels, confidence))
    return Segmentation(tuple(bodies), tuple(problems))
