"""Weights of the correction network in a file: safetensors, with what they were trained from and on, and a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from usx_common.errors import UsxError
from usx_completion.correction.network import CorrectionNetwork, NetworkSettings, StageSettings
from usx_completion.shape_model import BadModel, ShapeModel

FORMAT = "usx correction network 1"
LARGEST_FILE_BYTES = 64 * 2**20


def save_network(path: Path, network: CorrectionNetwork, shape_model_sha256: str, card: Mapping[str, str]) -> None:
    """Write weights as float16. ``card``: data, splits, licence, in words; ``shape_model_sha256``: of the shape model
    that the network corrects, without which they mean nothing."""
    arrays = {name: value.detach().cpu().numpy().astype(np.float16)
              for name, value in network.state_dict().items()}
    metadata = {**card, "format": FORMAT, "settings": json.dumps(asdict(network.settings), sort_keys=True),
                "shape_model": shape_model_sha256, "sha256": content_hash(arrays)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(arrays, metadata=metadata))


def load_network(path: Path, model: ShapeModel, shape_model_sha256: str) -> tuple[CorrectionNetwork, dict[str, str]]:
    """The network, ready to answer, and its metadata. Raises BadModel for a file that is missing, damaged, of another
    kind, of other shapes, or made for another shape model."""
    arrays, metadata = _read(path)
    if metadata.get("format") != FORMAT:
        raise BadModel(f"{path} holds no usx correction network (format {metadata.get('format')!r}, need {FORMAT!r})")
    if content_hash(arrays) != metadata.get("sha256"):
        raise BadModel(f"{path} is corrupt: its content does not match its SHA-256; train or fetch it again")
    if metadata.get("shape_model") != shape_model_sha256:
        raise BadModel(f"{path} corrects another shape model (SHA-256 {metadata.get('shape_model', '')[:12]}..) than "
                       f"the one loaded ({shape_model_sha256[:12]}..)")
    network = CorrectionNetwork(model, _settings(path, metadata))
    expected = network.state_dict()
    for name, value in expected.items():
        if name not in arrays or arrays[name].shape != tuple(value.shape):
            found = arrays[name].shape if name in arrays else "missing"
            raise BadModel(f"{path}: {name} is {found}, the network needs {tuple(value.shape)}")
    if set(arrays) - set(expected):
        raise BadModel(f"{path} holds arrays that the network has not: {sorted(set(arrays) - set(expected))[:3]}")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise BadModel(f"{path} holds weights that are not finite")
    network.load_state_dict({name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()})
    return network.eval(), metadata


def content_hash(arrays: Mapping[str, NDArray]) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _settings(path: Path, metadata: Mapping[str, str]) -> NetworkSettings:
    try:
        numbers = json.loads(metadata["settings"])
        stages = tuple(StageSettings(**stage) for stage in numbers.pop("stages"))
        return NetworkSettings(stages=stages, **numbers)
    except (KeyError, TypeError, ValueError, UsxError) as error:
        raise BadModel(f"{path}: its settings cannot be read: {error}") from error


def _read(path: Path) -> tuple[dict[str, NDArray], dict[str, str]]:
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise BadModel(f"{path} is larger than {LARGEST_FILE_BYTES >> 20} MiB: no correction network")
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise BadModel(f"{path} is not there: train the network, or name the folder that has it") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise BadModel(f"{path} cannot be read: {error}") from error
