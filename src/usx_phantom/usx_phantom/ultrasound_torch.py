"""The ultrasound model on torch: frames of many poses at once, on a GPU or any other torch device.

Kernels, curves, tables and pixel maps are those of an `UltrasoundSimulator`, so there is one source of every number.
That simulator casts the rays (numba, on the CPU: about a hundredth of the work); all else runs on the device. Frames
differ from the simulator's by one grey level at most: sums are taken in another order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from usx_common.errors import UsxError
from usx_phantom.ultrasound import UltrasoundSimulator
from usx_phantom.ultrasound_torch_lines import LineLayer, mix

FRAMES_AT_ONCE = 16  # about 30 MB each while they are laid


class TorchUltrasound:
    """Makes frames of a simulator on a torch `device`. Raises UsxError for a device that this machine lacks."""

    def __init__(self, simulator: UltrasoundSimulator, device: str = "cpu") -> None:
        try:
            self.device = torch.device(device)
            torch.empty(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise UsxError(f"torch device '{device}' cannot be used: {str(error).splitlines()[0]}") from error
        self._simulator = simulator
        self._layer = LineLayer(simulator, self.device)
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

    def frames(self, poses: Sequence[NDArray[np.float64]], first_index: int = 0) -> Tensor:
        """uint8 (frames, rows, columns) on the device, seen from rigid (4, 4) `poses`, mm, in their order.

        Poses are taken `FRAMES_AT_ONCE` together, which bounds the memory. Raises as `UltrasoundSimulator.frame` does.
        """
        parts = [torch.empty((0, *self._simulator.converter.image_shape), dtype=torch.uint8, device=self.device)]
        for start in range(0, len(poses), FRAMES_AT_ONCE):
            chosen = poses[start: start + FRAMES_AT_ONCE]
            salts = [self._simulator.noise_salt(first_index + start + n) for n in range(len(chosen))]
            fields = self._layer.lay([self._simulator.look(pose) for pose in chosen])
            parts.append(self.to_pictures(self.envelopes(*fields, salts)))
        return torch.cat(parts)

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
        """Indices into the table of random numbers for the noise of every sample, see `scatter.detect`."""
        line = torch.arange(shape[0], device=self.device)[:, None]
        sample = torch.arange(shape[1], device=self.device)
        salt = torch.tensor(list(salts), dtype=torch.int64, device=self.device)[:, None, None]
        return mix(line, sample, salt, 9)

    def _put(self, values: NDArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)
