"""Clouds to train and validate on, from files of the project's or the authors' layout."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from usx_common.errors import UsxError
from usx_completion.data.dataset import Dataset
from usx_completion.data.layout import UNKNOWN_LICENCE
from usx_completion.data.reading import read_dataset
from usx_completion.data.sampling_points import farthest_points_fast


@dataclass(frozen=True)
class CloudSettings:
    """Points that the network is given and compared with; larger clouds of a file are thinned to furthest points,
    smaller ones are used as they are. ``validated``: samples that a validation looks at, 0: all."""

    partial_points: int = 4096
    xray_points: int = 4096
    complete_points: int = 4096
    validated: int = 0

    def __post_init__(self) -> None:
        for name in ("partial_points", "xray_points", "complete_points"):
            if not 16 <= getattr(self, name) <= 65536:
                raise UsxError(f"cloud setting {name} = {getattr(self, name)} must be within 16 .. 65536")
        if not 0 <= self.validated <= 10**6:
            raise UsxError(f"cloud setting validated = {self.validated} must be within 0 .. 1e6")


@dataclass(frozen=True)
class Clouds:
    """N samples: ``partial`` (N, P, 3), ``filled`` (N, Nx, 3), ``complete`` (N, M, 3) float32 on the CPU; ``labels``
    (N,) 0..4 = L1..L5; ``notes`` of where they are from."""

    partial: Tensor
    filled: Tensor
    complete: Tensor
    labels: NDArray[np.int64]
    notes: dict[str, str]

    def __len__(self) -> int:
        return len(self.labels)


def training_and_validation(data: Path, validation: Path | None) -> tuple[Dataset, Dataset]:
    """Both splits: of one file that names them, or of two files of the authors' layout, which does not.

    A test split is never read. Raises UsxError where the validation is missing.
    """
    if validation is None:
        try:
            return read_dataset(data, "train"), read_dataset(data, "val")
        except UsxError as error:
            if "authors' layout" in str(error):
                raise UsxError(f"{error}: give the file to validate on with --validation") from error
            raise
    training, validating = read_dataset(data), read_dataset(validation)
    if training.extras is not None:
        training = training.split("train")
    if validating.extras is not None:
        validating = validating.split("val")
    shared = set(training.ids.tolist()) & set(validating.ids.tolist())
    if shared:
        raise UsxError(f"sample {sorted(shared)[0]} of {validation} is also in {data}, the data to train on")
    return training, validating


def clouds_of(data: Dataset, settings: CloudSettings, most: int = 0) -> Clouds:
    """Clouds of a data set with the numbers of points asked for; ``most``: evenly chosen samples, 0: all."""
    rows = np.arange(len(data))
    if most and most < len(rows):
        rows = np.linspace(0, len(rows) - 1, most).round().astype(np.int64)
    kept = data.chosen(rows)
    digest = hashlib.sha256()
    parts = []
    for name, count in (("incomplete", settings.partial_points), ("labelmaps", settings.xray_points),
                        ("complete", settings.complete_points)):
        array = thinned(getattr(kept, name), count)
        digest.update(array.tobytes())
        parts.append(torch.from_numpy(array))
    told = {key: text for key, text in sorted(data.attributes.items()) if key not in ("settings", "licence")}
    notes = {"data": ", ".join(f"{key} {text}" for key, text in told.items()), "data_sha256": digest.hexdigest(),
             "samples": str(len(rows)), "licence": data.attributes.get("licence", "").strip() or UNKNOWN_LICENCE}
    partial, filled, complete = parts
    return Clouds(partial, filled, complete, labels=kept.labels, notes=notes)


def thinned(clouds: NDArray, count: int) -> NDArray[np.float32]:
    """(N, count, 3) furthest points of clouds (N, P, 3), or the clouds where they have no more; float32."""
    if clouds.shape[1] <= count:
        return np.ascontiguousarray(clouds, dtype=np.float32)
    return np.stack([cloud[farthest_points_fast(cloud, count)] for cloud in clouds]).astype(np.float32)
