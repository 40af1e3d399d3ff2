"""Scan lines of many frames laid on torch: `ultrasound_lines.lay_lines` and its kernels for whole tensors.

The compiled kernels are the model; this follows them operation by operation in the same precision (positions in 64
bits, so that a scatterer's cell cannot change; fields in 32 bits). A test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from usx_phantom import tissue
from usx_phantom.scatter import TABLE_BITS, TEXTURE_SIZE
from usx_phantom.ultrasound import UltrasoundSimulator
from usx_phantom.ultrasound_lines import INTERFACES, SAME_SURFACE, SeenLines

# Odd multipliers of `scatter.mix`, as signed numbers of 64 bits
MIX = tuple(int(np.uint64(m).astype(np.int64)) for m in (
    0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
Number = Tensor | int


def mix(a: Number, b: Number, c: Number, salt: Number) -> Tensor:
    """`scatter.mix` of whole numbers of 64 bits: indices into the table of random numbers."""
    h = torch.as_tensor(a) * MIX[0]
    h = h ^ (torch.as_tensor(b) * MIX[1])
    h = h ^ (torch.as_tensor(c) * MIX[2]) ^ salt
    h = (h ^ _shift(h, 30)) * MIX[3]
    h = (h ^ _shift(h, 27)) * MIX[4]
    return (h ^ _shift(h, 31)) & ((1 << TABLE_BITS) - 1)


def _shift(values: Tensor, bits: int) -> Tensor:
    """Right shift of numbers of 64 bits that fills up with zeros."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


class LineLayer:
    """Lays the lines of a simulator on a torch `device`."""

    def __init__(self, simulator: UltrasoundSimulator, device: torch.device) -> None:
        self._device = device
        self._numbers = simulator.numbers
        self._lattice = self._put(simulator.lattice).double()
        self._table = self._put(simulator.table)
        self._volume = self._put(simulator.volume).double()
        self._weights = simulator.settings.beam.elevation_weights
        self._lines, self._samples = simulator.converter.polar_shape

    def lay(self, frames: Sequence[SeenLines]) -> tuple[Tensor, Tensor]:
        """Real and imaginary part (frames, lines, samples) float32 of the echoes of `frames`, before any filter."""
        origins, directions, starts, alongs, gaps, hits, amplitudes = (
            self._put(np.concatenate([getattr(seen, name) for seen in frames]))
            for name in ("origins", "directions", "starts", "alongs", "gaps", "hits", "amplitudes"))
        step, gel, fat_thickness, _ = self._numbers.depths
        x, y, z = origins.unbind(-1)
        fat = fat_thickness * (1.0 + 0.08 * self._pattern(x / 22.0, y / 60.0, z / 30.0))
        last = hits.amax(dim=1).clamp(max=self._samples * step)
        # summed as the kernel does: a node on the very border of two layers must fall on the same side
        nodes = self._depths()[:: tissue.COARSE_STEP]
        nodes = torch.cat([nodes[:1], nodes + tissue.COARSE_STEP * step])
        values = self._hounsfield(starts[:, None] + nodes[:, None] * alongs[:, None])
        depth = nodes - gaps.clamp(max=1e6)[:, None]
        loss = self._loss(values, depth, fat[:, None])
        field = self._scatter(origins, directions, (nodes, depth, values), fat, last, loss)
        self._boundaries(field, (origins, gaps, fat, last), values, loss)
        self._bone(field, hits, amplitudes, loss)
        for part in field:
            part[gaps > gel] = 0.0
        real, imaginary = (part.view(len(frames), self._lines, self._samples) for part in field)
        return real, imaginary

    def _scatter(self, origins: Tensor, directions: Tensor, along: tuple[Tensor, Tensor, Tensor], fat: Tensor,
                 last: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
        """See `tissue.scatter_line`: real and imaginary part (N, samples)."""
        nodes, depth, values = along
        points = (origins[:, None] + nodes[:, None] * directions[:, None]).unbind(-1)
        amplitude, coherent = self._tissue(points, depth, fat[:, None], values)
        # a node is laid when the sample two before it is; the first is none
        laid = torch.zeros_like(depth, dtype=torch.bool)
        laid[:, 1:] = nodes[:-1] <= last[:, None]
        amplitude, coherent = (self._between(torch.where(laid, part, 0.0)) * loss for part in (amplitude, coherent))
        r = self._depths()
        cells = [torch.floor((origins[:, a, None] + r * directions[:, a, None]) / tissue.CELL[a]).long()
                 for a in range(3)]
        random = self._table[mix(cells[0], cells[1], cells[2], 0)]
        seen = r <= last[:, None]
        amplitude = amplitude.float()
        real = torch.where(seen, amplitude * random[..., 0] + coherent.float(), 0.0)
        return real, torch.where(seen, amplitude * random[..., 1], 0.0)

    def _between(self, nodes: Tensor) -> Tensor:
        """Values at the samples of values at the nodes, every second sample."""
        half = 0.5 * (nodes[:, :-1] + nodes[:, 1:])
        return torch.stack([nodes[:, :-1], half], dim=2).flatten(1)[:, : self._samples]

    def _tissue(self, points: tuple[Tensor, ...], depth: Tensor, fat: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """See `tissue.tissue_amplitude`, for points (x, y, z) of shape (N, nodes)."""
        x, y, z = points
        thickness, skin, fat_level, muscle_level, texture = self._numbers.layers[0]
        lobules = self._pattern(x / 7.0, y / 4.0, z / 9.0)
        streaks = self._pattern(x / 9.0 + 11.0, y / 0.9, z / 9.0)
        fibres = self._pattern((x + 0.3 * y) / 3.6, y / 0.8 + 7.0, z / 16.0)
        sheet = self._pattern(x / 12.0 + 3.0, (y + 0.15 * x) / 3.0, z / 60.0)
        known = values > tissue.GAS
        level = torch.where(known, self._interpolate(values, tissue.ECHO_BY_HOUNSFIELD), 1.0)
        muscle = torch.where(known, ((values + 90.0) / 50.0).clamp(0.0, 1.0), (depth >= fat).double())
        lean = fat_level * torch.exp(texture * (0.7 * lobules + 1.1 * streaks))
        strong = muscle_level * torch.exp(texture * (0.9 * lobules + fibres))
        amplitude = level * ((1.0 - muscle) * lean + muscle * strong)
        patch = (0.6 + 0.9 * lobules).clamp(min=0.0)
        septum = torch.where(sheet.abs() < 0.45, torch.exp(-((sheet / 0.14) ** 2)), 0.0)
        coherent = level * muscle * muscle_level * texture * 5.0 * septum * patch
        in_skin = depth < thickness
        amplitude = torch.where(in_skin, skin * torch.exp(0.4 * texture * lobules), amplitude)
        return torch.where(depth < 0.0, 0.0, amplitude), torch.where(in_skin, 0.0, coherent)

    def _loss(self, values: Tensor, depth: Tensor, fat: Tensor) -> Tensor:
        """Amplitude that is left (N, samples) after the absorption between the nodes, see `tissue.absorption`."""
        lean, strong = self._numbers.layers[1]
        known = values > tissue.GAS
        alpha = torch.where(known, strong * self._interpolate(values, tissue.ABSORPTION_BY_HOUNSFIELD),
                            torch.where(depth < fat, lean, strong))
        alpha = torch.where(depth < 0.0, 0.0, alpha)[:, 1:].repeat_interleave(tissue.COARSE_STEP, 1)
        return torch.exp(-tissue.DECIBEL * self._numbers.depths[0] * alpha[:, : self._samples].cumsum(1))

    def _boundaries(self, field: tuple[Tensor, Tensor], lines: tuple[Tensor, ...], values: Tensor,
                    loss: Tensor) -> None:
        """Echoes of skin and fasciae, and those of the CT's boundaries (`tissue.boundary_echoes`)."""
        origins, gaps, fat, last = lines
        step, fascia = self._numbers.depths[0], self._numbers.depths[3]
        x, _, z = origins.unbind(-1)
        for i, (first, second, strength, waviness) in enumerate(INTERFACES if not self._volume.numel()
                                                                else INTERFACES[:2]):
            row = torch.full_like(x, 3.7 * i), torch.full_like(x, 5.3 * i)
            wave = self._pattern(x / 18.0, row[0], z / 25.0)
            patch = self._pattern(x / 5.0 + 9.0, row[1], z / 9.0)
            depth = gaps + first + second * fat + waviness * wave
            keep = (depth >= 0.0) & (depth / step < self._samples - 1)
            left = self._left(loss, depth)
            self._add(field, depth, torch.where(keep, fascia * strength * torch.exp(0.6 * patch) * left, 0.0), 1.0, 0.0)
        if self._volume.numel():
            soft = values.clamp(-120.0, 100.0)
            known = (values[:, 1:] > tissue.GAS) & (values[:, :-1] > tissue.GAS)
            change = ((soft[:, 1:] - soft[:, :-1]).abs() - 8.0).clamp(min=0.0) / 200.0
            k = torch.arange(tissue.COARSE_STEP, self._samples, tissue.COARSE_STEP, device=self._device)
            known = known[:, : len(k)] & (k.double() * step <= last[:, None])
            field[0][:, k] += torch.where(known, fascia * loss[:, k].float() * change[:, : len(k)], 0.0).float()

    def _bone(self, field: tuple[Tensor, Tensor], hits: Tensor, amplitudes: Tensor, loss: Tensor) -> None:
        """See `ultrasound_lines._bone_echoes`."""
        roughness, bounce, specular, _ = self._numbers.surface
        line = torch.arange(len(hits), device=self._device) % self._lines
        left = torch.stack([self._left(loss, hits[:, e]) for e in range(hits.shape[1])], 1)
        self._shade(field, hits, (amplitudes * left).sum(1), line)
        for e in range(hits.shape[1]):
            low, high = self._slice_share(hits, e)
            parts = ((high - low) / (2.0 * self._numbers.depths[0])).clamp(min=1.0).long()
            strength = torch.where(torch.isinf(hits[:, e]), 0.0, amplitudes[:, e] * left[:, e] / torch.sqrt(parts))
            cell = (hits[:, e].clamp(max=1e6) / 0.7).long()
            for part in range(int(parts.max())):
                depth = torch.where(parts == 1, hits[:, e], low + (part + 0.5) / parts * (high - low))
                random = self._table[mix(cell, line // 3, e + 16 * part, 3)].double()
                share = torch.where(parts == 1, roughness, 1.0)
                self._add(field, depth, torch.where(part < parts, strength, 0.0),
                          1.0 - share + share * random[:, 0], share * random[:, 1])
            if specular > 0.0:
                self._reverberate(field, hits[:, e], amplitudes[:, e], left[:, e],
                                  (bounce * amplitudes[:, e] / (self._weights[e] * specular), line // 4 + 64 * e))

    def _shade(self, field: tuple[Tensor, Tensor], hits: Tensor, echo: Tensor, line: Tensor) -> None:
        """See `scatter.shade`."""
        tail, tail_length, haze, haze_length = self._numbers.surface[3]
        r = self._depths()
        share, behind = torch.zeros_like(field[0], dtype=torch.float64), torch.zeros_like(field[0], dtype=torch.float64)
        for e, weight in enumerate(self._weights):
            hit = hits[:, e, None]
            share += torch.where(r <= hit, weight, 0.0)
            behind += torch.where(r <= hit, 0.0, weight * (r - hit))
        rest = tail * torch.exp(-behind / tail_length) + haze * torch.exp(-behind / haze_length)
        rest *= (1.0 - share) * echo[:, None]
        k = torch.arange(self._samples, device=self._device)
        random = self._table[mix(k, line[:, None], 77, 5)]
        dark = (share < 1.0) & ~torch.isinf(hits.amin(1, keepdim=True))
        for part in range(2):
            field[part].copy_(torch.where(dark, (field[part] * share + rest * random[..., part]).float(), field[part]))

    def _reverberate(self, field: tuple[Tensor, Tensor], depth: Tensor, echo: Tensor, left: Tensor,
                     again: tuple[Tensor, Tensor]) -> None:
        """See `scatter.reverberate`; `again` = (share that comes back, salt) of every line."""
        bounce, salt = again
        end = (self._samples - 1) * self._numbers.depths[0]
        strength, n = torch.where(torch.isinf(depth), 0.0, echo * left), 1
        while True:
            active = ((n + 1) * depth < end) & (strength > 1e-3)
            if not bool(active.any()):
                return
            n += 1
            strength = torch.where(active, strength * bounce * left, 0.0)
            for part in range(6):
                index = mix(n, salt, part, 13)
                turn = self._table[mix(index, salt, part, 17)].double()
                place = n * depth + 1.6 * (n - 1) * self._table[index, 0].double()
                self._add(field, place, 0.5 * strength, turn[:, 0], turn[:, 1])

    @staticmethod
    def _slice_share(hits: Tensor, e: int) -> tuple[Tensor, Tensor]:
        """See `ultrasound_lines._slice_share`."""
        low = high = hits[:, e]
        for other in (e - 1, e + 1):
            if 0 <= other < hits.shape[1]:
                near = (hits[:, other] - hits[:, e]).abs() < SAME_SURFACE
                middle = torch.where(near, 0.5 * (hits[:, other] + hits[:, e]), hits[:, e])
                low, high = torch.minimum(low, middle), torch.maximum(high, middle)
        return low, high

    def _add(self, field: tuple[Tensor, Tensor], depth: Tensor, amplitude: Tensor, cosine: Tensor | float,
             sine: Tensor | float) -> None:
        """See `scatter.add_echo`: one echo a line at `depth` (N,) mm; of amplitude 0 where there is none."""
        position = torch.nan_to_num(depth, posinf=-1e6) / self._numbers.depths[0]
        k = torch.floor(position).long()
        fits = (k >= 0) & (k + 1 < self._samples) & (amplitude != 0.0)
        share = position - k
        k = torch.where(fits, k, 0)
        rows = torch.arange(len(k), device=self._device)
        for part, turn in zip(field, (cosine, sine), strict=True):
            whole = torch.where(fits, amplitude * turn, 0.0)
            part[rows, k] += (whole * (1.0 - share)).nan_to_num().float()
            part[rows, k + 1] += (whole * share).nan_to_num().float()

    def _left(self, loss: Tensor, depth: Tensor) -> Tensor:
        """Loss at the sample of a depth (N,), mm; of the last sample beyond the end."""
        k = (depth / self._numbers.depths[0]).clamp(0, self._samples - 1).long()
        return loss.gather(1, k[:, None])[:, 0].float().double()

    def _pattern(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """See `scatter.pattern`."""
        last = TEXTURE_SIZE - 1
        low = [torch.floor(c) for c in (x, y, z)]
        u, v, w = (c - f for c, f in zip((x, y, z), low, strict=True))
        i, j, k = (f.long() & last for f in low)
        i1, j1, k1 = ((n + 1) & last for n in (i, j, k))
        grid = self._lattice
        near = (1 - v) * ((1 - u) * grid[k, j, i] + u * grid[k, j, i1]) \
            + v * ((1 - u) * grid[k, j1, i] + u * grid[k, j1, i1])
        far = (1 - v) * ((1 - u) * grid[k1, j, i] + u * grid[k1, j, i1]) \
            + v * ((1 - u) * grid[k1, j1, i] + u * grid[k1, j1, i1])
        return (1 - w) * near + w * far

    def _hounsfield(self, index: Tensor) -> Tensor:
        """See `tissue.hounsfield`, at voxel indices (..., 3)."""
        if not self._volume.numel():
            return torch.full(index.shape[:-1], tissue.NO_VALUE, dtype=torch.float64, device=self._device)
        top = torch.tensor(self._volume.shape[::-1], device=self._device) - 1
        low = index.long()
        inside = (index >= 0.0).all(-1) & (low < top).all(-1)
        u, v, w = (index - low).unbind(-1)
        i, j, k = torch.minimum(low.clamp(min=0), top - 1).unbind(-1)
        grid = self._volume
        near = (1 - v) * ((1 - u) * grid[k, j, i] + u * grid[k, j, i + 1]) \
            + v * ((1 - u) * grid[k, j + 1, i] + u * grid[k, j + 1, i + 1])
        far = (1 - v) * ((1 - u) * grid[k + 1, j, i] + u * grid[k + 1, j, i + 1]) \
            + v * ((1 - u) * grid[k + 1, j + 1, i] + u * grid[k + 1, j + 1, i + 1])
        return torch.where(inside, (1 - w) * near + w * far, tissue.NO_VALUE)

    def _interpolate(self, values: Tensor, heights: NDArray[np.float64]) -> Tensor:
        """Piecewise linear value over tissue.HOUNSFIELD, constant beyond its ends."""
        knots, tall = self._put(tissue.HOUNSFIELD), self._put(heights)
        values = values.clamp(float(knots[0]), float(knots[-1]))
        right = torch.searchsorted(knots, values.contiguous()).clamp(1, len(knots) - 1)
        share = (values - knots[right - 1]) / (knots[right] - knots[right - 1])
        return tall[right - 1] + share * (tall[right] - tall[right - 1])

    def _depths(self) -> Tensor:
        """Depth (samples,) of every sample, mm, in 64 bits."""
        return torch.arange(self._samples, dtype=torch.float64, device=self._device) * self._numbers.depths[0]

    def _put(self, values: NDArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)
