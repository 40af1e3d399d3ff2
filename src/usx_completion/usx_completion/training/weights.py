"""Trained weights as safetensors with a card: what they are, what they were trained on, and a SHA-256 of it all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from usx_common.errors import UsxError

LARGEST_FILE_BYTES = 2**30


class BadWeights(UsxError):
    """A file of weights that is missing, corrupt, foreign, or does not fit its network."""


def save_weights(path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, str]) -> None:
    """Write tensors with a card of texts; the file appears when it is complete. ``card`` must have "format"."""
    arrays = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    card = {**card}
    card["sha256"] = content_hash(arrays, card)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(save(arrays, metadata=card))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_weights(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and card of a file whose "format" is ``kind``. Raises BadWeights naming the file and what is wrong."""
    if not path.is_file():
        raise BadWeights(f"weights {path} do not exist; make them with train")
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise BadWeights(f"{path} has {path.stat().st_size} bytes; weights have less than {LARGEST_FILE_BYTES}")
    try:
        with safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}
            card = dict(stored.metadata() or {})
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise BadWeights(f"{path} cannot be read as safetensors: {error}") from error
    if card.get("format") != kind:
        raise BadWeights(f"{path} holds {card.get('format')!r}; {kind!r} is needed")
    if content_hash(tensors, card) != card.get("sha256"):
        raise BadWeights(f"{path} is corrupt: its content does not match its SHA-256; train or copy it again")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise BadWeights(f"{path}: {name} holds numbers that are not finite")
    return tensors, card


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put tensors into a module. Raises BadWeights naming the first that is missing, unknown or of another shape."""
    needed = module.state_dict()
    for name, tensor in needed.items():
        if name not in tensors:
            raise BadWeights(f"{path} lacks {name}; it belongs to another network or version")
        if tensors[name].shape != tensor.shape:
            raise BadWeights(f"{path}: {name} has shape {tuple(tensors[name].shape)}; it must be {tuple(tensor.shape)}")
    unknown = sorted(set(tensors) - set(needed))
    if unknown:
        raise BadWeights(f"{path}: {unknown[0]} has no place in this network")
    module.load_state_dict(dict(tensors))


def content_hash(tensors: Mapping[str, Tensor], card: Mapping[str, str]) -> str:
    """SHA-256 over names, types, shapes and bytes of the tensors, then over the card but for the hash itself."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].contiguous().numpy()
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.tobytes())
    digest.update(json.dumps({key: text for key, text in sorted(card.items()) if key != "sha256"}).encode())
    return digest.hexdigest()
