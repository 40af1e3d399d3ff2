"""The ultrasound model's receiver on torch: point spread, detection, compression and scan conversion of many frames.

Kernels, curves, tables and pixel maps are those of an `UltrasoundSimulator`, so there is one source of every number.
The rays are cast and the echoes laid by that simulator (numba, on the CPU); what follows runs on any torch device.
Frames differ from the simulator's by one grey level at most: sums are taken in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from usx_common.errors import UsxError
from usx_phantom.scatter import TABLE_BITS
from usx_phantom.ultrasound import UltrasoundSimulator

# Odd multipliers and shifts of `scatter.mix`, as signed numbers of 64 bits
MIX = tuple(int(np.uint64(m).astype(np.int64)) for m in (
    0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class TorchReceiver:
    """Makes frames of a simulator on a torch `device`. Raises UsxError for a device that this machine lacks."""

    def __init__(self, simulator: UltrasoundSimulator, device: str = "cpu") -> None:
        try:
            self.device = torch.device(device)
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise UsxError(f"torch device '{device}' cannot be used: {str(error).splitlines()[0]}") from error
        self._simulator = simulator
        self._axial, self._lateral = self._put(simulator.axial), self._put(simulator.lateral)
        self._gain, self._ring, self._noise = (self._put(curve) for curve in simulator.curves)
        self._table = self._put(simulator.table)
        pixels, line, sample = simulator.converter.places
        lines, samples = simulator.converter.polar_shape
        first, second = line.astype(np.int64).clip(0, lines - 2), sample.astype(np.int64).clip(0, samples - 2)
        self._pixels = self._put(pixels.astype(np.int64))
        self._corner = self._put(first * samples + second)
        self._across, self._along = self._put(line - first.astype(np.float32)), self._put(
            sample - second.astype(np.float32))

    def frames(self, poses: Sequence[NDArray[np.float64]], first_index: int = 0, threads: int = 1) -> Tensor:
        """uint8 (frames, rows, columns) on the device, seen from rigid (4, 4) `poses`, mm, in their order.

        `threads` lay the echoes. All frames of a call are held at once: about 6 MB each. Raises as
        `UltrasoundSimulator.frame` does.
        """
        with ThreadPoolExecutor(max_workers=max(threads, 1)) as pool:
            fields = list(pool.map(self._simulator.field, poses))
        salts = [self._simulator.noise_salt(first_index + n) for n in range(len(fields))]
        real = self._put(np.array([field[0] for field in fields]))
        imaginary = self._put(np.array([field[1] for field in fields]))
        return self.to_pictures(self.envelopes(real, imaginary, salts))

    def envelopes(self, real: Tensor, imaginary: Tensor, salts: Sequence[int]) -> Tensor:
        """Envelopes (frames, lines, samples) of fields as laid; `salts` draw the noise of each frame."""
        noise = self._table[self._noise_places(salts, real.shape[1:])]
        a = self._spread(real) * self._gain + self._ring + self._noise * noise[..., 0]
        b = self._spread(imaginary) * self._gain + self._noise * noise[..., 1]
        return torch.sqrt(a * a + b * b)

    def to_pictures(self, envelopes: Tensor) -> Tensor:
        """uint8 (frames, rows, columns) of envelopes (frames, lines, samples)."""
        scale = 255.0 / self._simulator.settings.receiver.dynamic_range_db
        level = 20.0 * torch.log10(torch.clamp(envelopes / self._simulator.white, min=1e-9))
        grey = torch.clamp(255.0 + scale * level, 0.0, 255.0).flatten(1)
        samples = self._simulator.converter.polar_shape[1]
        corner = self._corner
        near = torch.lerp(grey[:, corner], grey[:, corner + 1], self._along)
        far = torch.lerp(grey[:, corner + samples], grey[:, corner + samples + 1], self._along)
        rows, columns = self._simulator.converter.image_shape
        pictures = torch.zeros((len(grey), rows * columns), dtype=torch.uint8, device=self.device)
        pictures[:, self._pixels] = torch.clamp(torch.lerp(near, far, self._across) + 0.5, 0.0, 255.0).to(torch.uint8)
        return pictures.view(-1, rows, columns)

    def _spread(self, field: Tensor) -> Tensor:
        """Point spread: along the samples (zeros beyond the ends), then across the lines (edges repeat a line)."""
        frames, lines, samples = field.shape
        kernel = torch.cat([self._axial.flip(0)[:-1], self._axial])
        field = torch.nn.functional.conv1d(field.reshape(-1, 1, samples), kernel[None, None],
                                           padding=len(self._axial) - 1).view(frames, lines, samples)
        reach = len(self._lateral) - 1
        index = torch.arange(-reach, lines + reach, device=self.device).clamp(0, lines - 1)
        padded = field[:, index]
        result = self._lateral[0] * field
        for t in range(1, reach + 1):
            left, right = (padded[:, reach + shift: reach + shift + lines] for shift in (-t, t))
            result += self._lateral[t] * (left + right)
        return result

    def _noise_places(self, salts: Sequence[int], shape: torch.Size) -> Tensor:
        """Indices into the table of random numbers: `scatter.mix(line, sample, salt, 9)` of every sample."""
        line = torch.arange(shape[0], device=self.device)[:, None] * MIX[0]
        sample = torch.arange(shape[1], device=self.device) * MIX[1]
        salt = torch.tensor(list(salts), dtype=torch.int64, device=self.device)[:, None, None] * MIX[2]
        h = (line ^ sample) ^ salt ^ 9
        h = (h ^ _shift(h, 30)) * MIX[3]
        h = (h ^ _shift(h, 27)) * MIX[4]
        return (h ^ _shift(h, 31)) & ((1 << TABLE_BITS) - 1)

    def _put(self, values: NDArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)


def _shift(values: Tensor, bits: int) -> Tensor:
    """Right shift of numbers of 64 bits that fills up with zeros."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
