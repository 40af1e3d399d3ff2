"""The models that can be trained, by the name that a configuration gives; loaded only when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from usx_common.errors import UsxError
from usx_completion.training.learner import Learner

MODELS = {"paper": "usx_completion.paper.learner:make_learner",
          "correction": "usx_completion.correction.learner:make_learner"}


@dataclass(frozen=True)
class Request:
    """What a learner is made from: the ``sections`` of the configuration but for "training"; ``data`` to train on and,
    where that does not hold it, a file for ``validation``; ``variant``, "" for the configuration's own; ``size``:
    samples of a batch over all processes; ``report``: prints a line, None to be quiet."""

    sections: dict[str, Any]
    data: tuple[Path, ...]
    validation: Path | None
    variant: str
    size: int
    seed: int
    device: torch.device
    report: Callable[[str], None] | None = None


def make_learner(request: Request) -> Learner:
    """The learner of the model that the sections name. Raises UsxError for an unknown model."""
    name = request.sections.get("model")
    if not isinstance(name, str) or name not in MODELS:
        raise UsxError(f"configuration: model = {name!r} is unknown; known are {', '.join(MODELS)}")
    module, function = MODELS[name].split(":")
    return getattr(importlib.import_module(module), function)(request)
