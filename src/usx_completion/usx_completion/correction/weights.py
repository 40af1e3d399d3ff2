"""Weights of the correction network in a file: with its settings, and the shape model that it corrects."""

from __future__ import annotations

import json
from pathlib import Path

from usx_common.errors import UsxError
from usx_completion.correction.network import CorrectionNetwork, NetworkSettings
from usx_completion.correction.polish import PolishSettings
from usx_completion.shape_model import ShapeModel
from usx_completion.training.configuration import as_text, build
from usx_completion.training.weights import BadWeights, fill, load_weights

FORMAT = "usx correction network 1"


def card_of(network: CorrectionNetwork, shape_model_sha256: str) -> dict[str, str]:
    """What a file must say for `load_network` to take it."""
    return {"format": FORMAT, "network": as_text(network.settings), "shape_model": shape_model_sha256,
            "polish": as_text(PolishSettings())}


def load_network(path: Path, model: ShapeModel, shape_model_sha256: str) -> tuple[CorrectionNetwork, dict[str, str]]:
    """The network, ready to answer, and its card. Raises BadWeights for a file that is missing, damaged, of another
    kind or shape, or made for another shape model."""
    tensors, card = load_weights(path, FORMAT)
    if card.get("shape_model") != shape_model_sha256:
        raise BadWeights(f"{path} corrects another shape model (SHA-256 {card.get('shape_model', '')[:12]}..) than "
                         f"the one loaded ({shape_model_sha256[:12]}..)")
    if card.get("polish") != as_text(PolishSettings()):
        raise BadWeights(f"{path} has its sigma from answers that were polished with {card.get('polish', 'nothing')}, "
                         f"not {as_text(PolishSettings())}: train again")
    try:
        network = CorrectionNetwork(model, build(NetworkSettings, json.loads(card["network"]), "network"))
    except (KeyError, ValueError, UsxError) as error:
        raise BadWeights(f"{path}: its settings cannot be read: {error}") from error
    fill(network, {name: tensor.float() for name, tensor in tensors.items()}, path)
    return network.eval(), card
