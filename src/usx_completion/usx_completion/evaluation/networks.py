"""Rows of the tables whose answers come from trained networks; loaded only where their weights are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open

from usx_completion.evaluation.case import CaseInput
from usx_completion.evaluation.methods import MethodOptions, MissingWeights, Prediction
from usx_completion.shape_model import PACKAGED

if TYPE_CHECKING:
    from usx_completion.correction.completion import CorrectionCompletion
    from usx_completion.paper.completion import PaperCompletion

# name in the tables -> file of its weights, how `train` makes it, and where that is described
FILES = {"US-only": ("paper_small_baseline", "paper_small --variant baseline --data DATA", "paper-network"),
         "EF": ("paper_small_ef", "paper_small --variant ef --data DATA", "paper-network"),
         "LF": ("paper_small_lf", "paper_small --variant lf --data DATA", "paper-network"),
         "EF+LF": ("paper_small_ef_lf", "paper_small --variant ef_lf --data DATA", "paper-network"),
         "usx": ("usx", "usx --data POOL ACQUIRED", "usx-network")}


class PaperMethod:
    """The paper's network, level by level: clouds of 4,096 points. ``note``: which weights it has."""

    def __init__(self, name: str, completion: PaperCompletion, note: str = "") -> None:
        self.name, self.note, self._completion = name, note, completion

    def complete(self, given: CaseInput) -> dict[str, Prediction]:
        """Clouds in mm of the levels with an input."""
        return {level: mine.normalisation.invert(self._completion.complete(mine.partial, mine.filled))
                for level, mine in given.inputs.items()}


class CorrectionMethod:
    """The project's own network: meshes of all levels at once. ``note``: which weights it has."""

    name = "usx"

    def __init__(self, completion: CorrectionCompletion, note: str = "") -> None:
        self.note, self._completion = note, completion

    def complete(self, given: CaseInput) -> dict[str, Prediction]:
        """Meshes with sigma of the levels that could be placed."""
        return dict(self._completion.complete(given.points, given.labels, given.sources).levels)


def open_network(name: str, options: MethodOptions) -> PaperMethod | CorrectionMethod:
    """The method of a name of `FILES`. Raises MissingWeights where there is no file, BadWeights for a bad one."""
    path = weights_file(name, options)
    from usx_completion.training.processes import Group, device_of  # torch takes a second to import

    device = str(device_of(options.device, Group()))
    if name == "usx":
        from usx_completion.correction.completion import CorrectionCompletion

        mine = CorrectionCompletion.load(path, device)
        return CorrectionMethod(mine, _note(name, path, mine.card))
    from usx_completion.paper.completion import PaperCompletion

    theirs = PaperCompletion.load(path, device)
    return PaperMethod(name, theirs, _note(name, path, theirs.card))


def _note(name: str, path: Path, card: Mapping[str, str]) -> str:
    """Which size of network a row shows, and how long it was trained."""
    with safe_open(path, framework="np") as stored:
        count = sum(int(np.prod(stored.get_slice(key).get_shape())) for key in stored.keys())
    trained = f"{card['step']} steps" if "step" in card else "unknown steps"
    if "minutes" in card:
        trained += f" in {float(card['minutes']):.0f} minutes on {card.get('device', 'an unknown device')}"
    return f"{name}: {count:,} parameters, {trained}, {path.name}, SHA-256 {card.get('sha256', '')[:12]}"


def weights_file(name: str, options: MethodOptions) -> Path:
    """The file in the folder of ``options.weights``, else the packaged one. Raises MissingWeights."""
    stem, configuration, described = FILES[name]
    folders = [folder for folder in (options.weights, PACKAGED.parent) if folder is not None]
    for folder in folders:
        for path in (folder / f"{stem}.safetensors", folder / stem / "model.safetensors"):
            if path.is_file():
                return path
    raise MissingWeights(f"{name} is left out: neither {stem}.safetensors nor {stem}/model.safetensors is in "
                         f"{' or '.join(map(str, folders))}; make it with `usx run usx_completion train --config "
                         f"{configuration} --out WEIGHTS/{stem}` (docs/{described}.md) and give --weights WEIGHTS")
