"""The statistical shape model: for every level a mean vertebra, shared modes of variation, and how levels sit.

One topology serves all five levels. A level's local shape is ``mean + sum_k c_k sd_k mode_k`` with standard normal
coefficients c; its frame (`vertebra_L*`) has the origin at the body's centroid and the axes of the template (LPS).
Stored as safetensors with its own SHA-256 over arrays and spread, checked on load.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_completion.simulated_partial import posterior_wall
from usx_completion.spread import Spread

FORMAT = "usx statistical shape model 2"
EARLIER = "usx statistical shape model 1"  # its hash does not cover the spread
PACKAGED = Path(__file__).parent / "models" / "lumbar_shape_model.safetensors"
PACKAGED_REAL = PACKAGED.with_name("lumbar_shape_model_real.safetensors")  # CC BY-SA 4.0, see docs/shape-model.md
REQUIRED_METADATA = ("format", "sha256", "seeds", "count", "generator_version")
LARGEST_FILE_BYTES = 64 * 2**20
BEHIND_WALL_MM = 1.0
BESIDE_BODY_MM = 1.0


class BadModel(UsxError):
    """Weights that are missing, corrupt, or of another kind."""


@dataclass(frozen=True)
class ShapeModel:
    """Arrays of the model; L = 5 levels in the order of ``LEVELS``, V vertices, K modes. mm and radians.

    ``faces`` (F, 3) int32; ``means`` (L, V, 3); ``modes`` (K, V, 3), in mm for one pooled standard deviation;
    ``mode_sd`` (L, K), each level's standard deviation of that mode's coefficient; ``mode_correlation`` (K,), between
    levels of one spine; ``residual_sd`` (L, V), what the modes leave over along the normal; ``body`` (V,) mask of the
    vertebral body; ``step_mean`` and ``step_sd`` (L - 1, 6), rotation vector and translation of the next caudal level
    in a level's frame; ``tilt_mean`` and ``tilt_sd`` (L, 3), rotation vector of a level in the spine's frame;
    ``spread``: the amplitudes of sampled shapes (in the file's metadata; a default where it names none).
    """

    faces: NDArray[np.int32]
    means: NDArray[np.float64]
    modes: NDArray[np.float64]
    mode_sd: NDArray[np.float64]
    mode_correlation: NDArray[np.float64]
    residual_sd: NDArray[np.float64]
    body: NDArray[np.bool_]
    step_mean: NDArray[np.float64]
    step_sd: NDArray[np.float64]
    tilt_mean: NDArray[np.float64]
    tilt_sd: NDArray[np.float64]
    spread: Spread = field(default_factory=Spread)

    @cached_property
    def xray_bodies(self) -> NDArray[np.bool_]:
        """(L, V) vertices of what a lateral X-ray shows as each level's body: in front of the level's own canal and no
        wider than the template's body. ``body`` serves all levels, so it takes some of L1's pedicles along."""
        return np.stack([self._in_front(mean) for mean in self.means])

    def _in_front(self, mean: NDArray) -> NDArray[np.bool_]:
        widest = np.abs(mean[self.body, 0]).max() + BESIDE_BODY_MM
        behind = posterior_wall(Mesh(mean, self.faces)).behind(mean)
        return (behind <= BEHIND_WALL_MM) & (np.abs(mean[:, 0]) <= widest)

    @property
    def mode_count(self) -> int:
        """K, the number of modes."""
        return len(self.modes)

    def mean_mesh(self, level: str) -> Mesh:
        """Mean vertebra of a level in its own frame, mm."""
        return Mesh(self.means[LEVELS.index(level)], self.faces)

    def instance(self, level: str, coefficients: NDArray) -> Mesh:
        """Vertebra of a level for standard normal ``coefficients`` (<= K,), own frame, mm."""
        index = LEVELS.index(level)
        count = len(coefficients)
        offset = np.tensordot(coefficients * self.mode_sd[index, :count], self.modes[:count], axes=1)
        return Mesh(self.means[index] + offset, self.faces)


_STORED = {
    "faces": np.uint16, "means": np.float32, "modes": np.float16, "mode_sd": np.float32,
    "mode_correlation": np.float32, "residual_sd": np.float16, "body": np.uint8, "step_mean": np.float32,
    "step_sd": np.float32, "tilt_mean": np.float32, "tilt_sd": np.float32,
}
_USED: dict[str, type] = {"faces": np.int32, "body": np.bool_}


def save_shape_model(path: Path, model: ShapeModel, metadata: Mapping[str, str]) -> None:
    """Write a model. ``metadata`` must name ``seeds``, ``count``, ``generator_version``; format and hash are added."""
    arrays = {name: np.ascontiguousarray(getattr(model, name), dtype=kind) for name, kind in _STORED.items()}
    spread = model.spread.to_json()
    complete = {**metadata, "spread": spread, "format": FORMAT, "sha256": content_hash(arrays, spread)}
    missing = [name for name in REQUIRED_METADATA if name not in complete]
    if missing:
        raise UsxError(f"the shape model's metadata lack {', '.join(missing)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(arrays, metadata=complete))


def load_shape_model(path: Path = PACKAGED) -> tuple[ShapeModel, dict[str, str]]:
    """The model and its metadata. Raises BadModel when the file is missing, corrupt, foreign, or of wrong shapes."""
    arrays, metadata = _read(path)
    if metadata.get("format") not in (FORMAT, EARLIER):
        raise BadModel(f"{path} is not a usx shape model (format {metadata.get('format')!r}, need {FORMAT!r})")
    missing = [name for name in REQUIRED_METADATA if not metadata.get(name)]
    if missing:
        raise BadModel(f"{path} lacks the metadata {', '.join(missing)}")
    if set(arrays) != set(_STORED):
        raise BadModel(f"{path} holds the arrays {sorted(arrays)}; a shape model has {sorted(_STORED)}")
    covered = metadata.get("spread", "") if metadata["format"] == FORMAT else ""
    if content_hash(arrays, covered) != metadata["sha256"]:
        raise BadModel(f"{path} is corrupt: its content does not match its SHA-256; build it again")
    _check_shapes(path, arrays)
    used: dict[str, NDArray] = {name: array.astype(_USED.get(name, np.float64)) for name, array in arrays.items()}
    try:
        spread = Spread.from_json(metadata["spread"]) if "spread" in metadata else Spread()
    except UsxError as error:
        raise BadModel(f"{path}: {error}") from error
    return ShapeModel(**used, spread=spread), metadata


def content_hash(arrays: Mapping[str, NDArray], spread: str = "") -> str:
    """SHA-256 over names, types, shapes and bytes of the arrays, in the order of their names, then over the spread."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.tobytes())
    digest.update(spread.encode())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, NDArray], dict[str, str]]:
    if not path.is_file():
        raise BadModel(f"shape model {path} does not exist; run build_shape_model")
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise BadModel(f"{path} has {path.stat().st_size} bytes; a shape model has less than {LARGEST_FILE_BYTES}")
    try:
        with safe_open(path, framework="numpy") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}, dict(stored.metadata() or {})
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise BadModel(f"{path} cannot be read as safetensors: {error}") from error


def _check_shapes(path: Path, arrays: Mapping[str, NDArray]) -> None:
    levels = len(LEVELS)
    vertices = arrays["body"].shape[0] if arrays["body"].ndim == 1 else -1
    modes = arrays["modes"].shape[0] if arrays["modes"].ndim == 3 else -1
    expected = {
        "means": (levels, vertices, 3), "modes": (modes, vertices, 3), "mode_sd": (levels, modes),
        "mode_correlation": (modes,), "residual_sd": (levels, vertices), "body": (vertices,),
        "step_mean": (levels - 1, 6), "step_sd": (levels - 1, 6), "tilt_mean": (levels, 3), "tilt_sd": (levels, 3),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise BadModel(f"{path}: array {name!r} has shape {arrays[name].shape}; it must be {shape}")
    for name, kind in _STORED.items():
        if arrays[name].dtype != kind:
            raise BadModel(f"{path}: array {name!r} is of type {arrays[name].dtype}; it must be {np.dtype(kind)}")
        if not np.isfinite(arrays[name].astype(np.float64)).all():
            raise BadModel(f"{path}: array {name!r} holds numbers that are not finite")
    faces = arrays["faces"]
    if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0 or faces.max() >= vertices:
        raise BadModel(f"{path}: the faces name vertices that the means do not have")
