"""How much each pixel of a B-mode image looks like the surface of bone: a bright ridge with a shadow below it.

Bone reflects almost everything, so along a beam its surface is a bright, thin echo, brighter than the tissue before
it, and what follows is dark down to the end of the image. The response is the product of these three, after the
bone measures built from reflection and shadow (Foroughi et al., "Ultrasound bone segmentation using dynamic
programming", IEEE Ultrasonics Symposium 2007); here each is a mean over a window with a physical size, found from
one integral image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_compounding.beams import BeamTables, make_tables, sample_beams, to_image
from usx_compounding.mask import MaskSettings


@dataclass(frozen=True)
class BoneSettings:
    """Sizes in mm along the beam: ``thickness`` of the echo, ``before`` it, ``gap`` below it, then its ``shadow``.

    ``width``: mm across beams that are averaged. ``shadow_ratio``: a shadow this bright, relative to the echo, is none.
    ``beam_share``: echoes weaker than this share of a beam's strongest response are dropped.
    """

    thickness: float = 1.5
    before: float = 3.0
    gap: float = 2.0
    shadow: float = 20.0
    width: float = 1.5
    shadow_ratio: float = 0.35
    beam_share: float = 0.5

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise UsxError(f"bone response {name} = {getattr(self, name)}: it must be above 0")


class BoneDetector:
    """Bone response of images of one size; it keeps no state between images."""

    def __init__(self, mask: MaskSettings, shape: tuple[int, int], pixel_mm: tuple[float, float],
                 settings: BoneSettings | None = None) -> None:
        settings = settings or BoneSettings()
        self._tables: BeamTables = make_tables(mask, shape, pixel_mm)
        along, across = self._tables.sample_mm, self._tables.beam_mm
        sizes = (settings.thickness / 2 / along, settings.before / along, settings.gap / along, settings.shadow / along,
                 settings.width / 2 / across)
        self._sizes = np.array([max(round(size), 1) for size in sizes], dtype=np.int64)
        self._ratios = np.array([settings.shadow_ratio, settings.beam_share], dtype=np.float32)

    def response(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(rows, columns) uint8 response of an image (rows, columns) uint8; 0 where nothing looks like bone."""
        beams = sample_beams(np.ascontiguousarray(image), self._tables.columns, self._tables.rows)
        return to_image(beam_response(beams, self._sizes, self._ratios), self._tables.back)


@numba.njit(inline="always")
def _mean(total, first_beam, last_beam, first, last):  # type: ignore[no-untyped-def]
    """Mean over beams [first_beam, last_beam) and samples [first, last) of an integral image."""
    inside = (total[last_beam, last] - total[first_beam, last]) - (total[last_beam, first] - total[first_beam, first])
    return inside / np.float32((last_beam - first_beam) * (last - first))


@numba.njit(cache=True, nogil=True)
def _integral(beams):  # type: ignore[no-untyped-def]
    total = np.zeros((beams.shape[0] + 1, beams.shape[1] + 1), dtype=np.float64)
    for beam in range(beams.shape[0]):
        along = 0.0
        for sample in range(beams.shape[1]):
            along += beams[beam, sample]
            total[beam + 1, sample + 1] = total[beam, sample + 1] + along
    return total


@numba.njit(cache=True, nogil=True)
def beam_response(beams, sizes, ratios):  # type: ignore[no-untyped-def]
    """(beams, samples) uint8 response of (beams, samples) float32 grey levels, samples running away from the probe.

    ``sizes``: half thickness, before, gap, shadow (samples), half width (beams). ``ratios``: shadow ratio, beam share.
    Where less than half of the shadow's length is left of the image, nothing can be said: 0.
    """
    half, before, gap, shadow, side = sizes
    count, length = beams.shape
    total = _integral(beams)
    out = np.zeros(beams.shape, dtype=np.uint8)
    line = np.zeros(length, dtype=np.float32)
    for beam in range(count):
        left, right = max(beam - side, 0), min(beam + side + 1, count)
        strongest = np.float32(0.0)
        for sample in range(length):
            line[sample] = 0.0
            top, bottom = sample - half, sample + half + 1
            if top < 1 or bottom + gap + shadow // 2 >= length:
                continue
            echo = _mean(total, left, right, top, bottom)
            below = _mean(total, left, right, bottom + gap, min(bottom + gap + shadow, length))
            darkness = 1.0 - below / (ratios[0] * echo + 1e-3)
            if darkness <= 0.0:
                continue
            rise = 1.0 - _mean(total, left, right, max(top - before, 0), top) / (echo + 1e-3)
            if rise > 0.0:
                line[sample] = echo * darkness * min(2.0 * rise, 1.0)
                strongest = max(strongest, line[sample])
        for sample in range(length):
            if line[sample] >= ratios[1] * strongest:
                out[beam, sample] = np.uint8(min(line[sample] + 0.5, 255.0))
    return out
