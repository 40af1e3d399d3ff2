"""Compounding with torch, on a CUDA device or the CPU: the same integer arithmetic as the CPU kernels, pixel-parallel.

Scatter-additions of integers give the same sums in any order, so the device's scheduling cannot show in the result.
torch is imported only when this engine is made: a node on numba never loads it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_compounding.cells import CellKind
from usx_compounding.engine import Deposit, Slices, base_limits
from usx_compounding.fixed_point import FRACTION_BITS, WEIGHT_BITS
from usx_compounding.mask import run_pixels

ONE = 1 << WEIGHT_BITS
FRAMES_AT_ONCE = 4  # bounds the temporary memory: about 80 bytes per pixel


class TorchEngine:
    """See `engine.Engine`. ``device``: "cpu", "cuda", "cuda:1" ... Raises UsxError when that device is not there."""

    lazy = False

    def __init__(self, device: str = "cuda") -> None:
        try:
            import torch
        except ImportError as error:
            raise UsxError("the torch engine needs the package torch: install it, or choose engine numba") from error
        self._torch = torch
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UsxError(f"device {device!r} is not there (no CUDA): choose engine numba, or device cpu")
        try:
            self._device = torch.device(device)
            torch.zeros(1, device=self._device)
        except RuntimeError as error:
            raise UsxError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
        self._pixels: tuple[bytes, Any, Any] | None = None

    def allocate(self, size: tuple[int, int, int], kind: CellKind) -> Any:
        dtype = self._torch.int16 if kind.dtype == np.int16 else self._torch.int64
        try:
            return self._torch.zeros((*size[::-1], kind.values), dtype=dtype, device=self._device)
        except RuntimeError as error:  # torch's out-of-memory error is one
            raise UsxError(f"{self._device} has no room for a volume of {size} voxels: {str(error).splitlines()[0]}"
                           ) from error

    def place(self, cells: Any, outer: Any, where: Slices) -> None:
        outer[where] = cells

    def move(self, cells: Any, part: Slices, outer: Any, where: Slices) -> None:
        self.place(cells[part], outer, where)

    def to_numpy(self, cells: Any) -> NDArray:
        return cells.cpu().numpy()

    def close(self) -> None:
        self._pixels = None

    def deposit(self, cells: Any, kind: CellKind, frames: Deposit) -> None:
        torch = self._torch
        columns, rows = self._pixel_lists(frames)
        table = torch.from_numpy(frames.table.astype(np.int64)).to(self._device)
        at_once = 1 if kind.combination == "latest" else FRAMES_AT_ONCE
        for first in range(0, len(frames.images), at_once):
            images = torch.from_numpy(np.array(frames.images[first:first + at_once])).to(self._device)
            steps = torch.from_numpy(frames.steps[first:first + at_once]).to(self._device)
            values = images[:, rows, columns].to(torch.int64).reshape(-1)
            place = steps[:, :, 0, None] * columns + steps[:, :, 1, None] * rows + steps[:, :, 2, None]
            place = place.permute(1, 0, 2).reshape(3, -1)
            voxels = place >> FRACTION_BITS
            nz, ny, nx, _ = cells.shape
            limits = torch.from_numpy(base_limits((nx, ny, nz), kind)).to(self._device)
            keep = ((voxels >= 0) & (voxels < limits[:, None])).all(dim=0) & (table[values] != 0)
            pixel = torch.nonzero(keep).reshape(-1)
            voxels, values = voxels[:, pixel], values[pixel]
            index = voxels[0] + nx * voxels[1] + nx * ny * voxels[2]
            targets = self._targets(kind, index, place[:, pixel], (nx, nx * ny))
            if kind.combination == "latest":
                width = frames.images.shape[2]
                self._latest(cells, targets, ((rows * width + columns)[pixel] << 8) | values, frames.order[first])
                continue
            for target, weight, within in targets:
                if kind.combination == "maximum":
                    cells.view(-1).scatter_reduce_(0, target, table[values[within]].to(cells.dtype), "amax")
                elif weight is None:
                    cells.view(-1).scatter_add_(0, target, table[values])
                else:
                    cells.view(-1).scatter_add_(0, target * 2, weight)
                    cells.view(-1).scatter_add_(0, target * 2 + 1, weight * values[within])

    def _pixel_lists(self, frames: Deposit) -> tuple[Any, Any]:
        """Columns and rows of the mask's pixels on the device, kept while the mask stays the same."""
        key = frames.runs.tobytes()
        if self._pixels is None or self._pixels[0] != key:
            columns, rows = run_pixels(frames.runs)
            self._pixels = (key, self._torch.from_numpy(columns).to(self._device),
                            self._torch.from_numpy(rows).to(self._device))
        return self._pixels[1], self._pixels[2]

    def _targets(self, kind: CellKind, index: Any, place: Any, strides: tuple[int, int]) -> list[tuple[Any, Any, Any]]:
        """(voxels, weights, which pixels) for one nearest voxel or each of eight corners; zero weights left out."""
        if kind.distribution == "nearest":
            return [(index, None, slice(None))]
        upper = (place >> (FRACTION_BITS - WEIGHT_BITS)) & (ONE - 1)
        fractions = ((ONE - upper), upper)
        targets = []
        for corner in range(8):
            right, down, deep = corner & 1, corner >> 1 & 1, corner >> 2
            weight = fractions[right][0] * fractions[down][1] * fractions[deep][2]
            within = self._torch.nonzero(weight).reshape(-1)
            offset = right + down * strides[0] + deep * strides[1]
            targets.append((index[within] + offset, weight[within], within))
        return targets

    def _latest(self, cells: Any, targets: list[tuple[Any, Any, Any]], low_key: Any, order: NDArray[np.int64]) -> None:
        """The frame's largest key at each voxel, kept where (stamp, key) is larger than what is held."""
        torch, stamp = self._torch, int(order[0])
        key = low_key | (int(order[1]) + 1) << 32
        touched, inverse = torch.unique(torch.cat([target for target, _, _ in targets]), return_inverse=True)
        newest = torch.zeros(len(touched), dtype=torch.int64, device=self._device)
        newest.scatter_reduce_(0, inverse, torch.cat([key[within] for _, _, within in targets]), "amax")
        flat = cells.view(-1, 2)
        held, held_key = flat[touched, 0], flat[touched, 1]
        wins = (held_key == 0) | (held < stamp) | ((held == stamp) & (held_key < newest))
        flat[touched[wins], 0] = stamp
        flat[touched[wins], 1] = newest[wins]
