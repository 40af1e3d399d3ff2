"""Which method the node completes with: made once from its parameters, warmed up, and kept alive without its GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS, SOURCE_ULTRASOUND, SOURCE_XRAY, label_of_level
from usx_common.transforms import apply, identity
from usx_completion import parameters
from usx_completion.completed import Completion
from usx_completion.completion import ShapeModelCompletion
from usx_completion.placement import usual_step
from usx_completion.shape_model import ShapeModel, load_shape_model

OUT_OF_MEMORY = "the GPU ran out of memory: on the CPU since"
NO_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED",
             "CUDNN_STATUS_ALLOC_FAILED", "CUSOLVER_STATUS_ALLOC_FAILED", "CUSOLVER_STATUS_NOT_INITIALIZED")


class Method(Protocol):
    """Completes one partial spine at a time; holds no state between calls."""

    def complete(self, points: NDArray, labels: NDArray, sources: NDArray) -> Completion:
        """Complete vertebrae: ``points`` (N, 3) mm, frame spine; ``labels``, ``sources`` (N,). Raises BadPartial."""


class ChosenMethod:
    """The method of the node's parameters: its ``name`` and the ``device`` that it runs on, empty where there is no
    choice; ``warning``: what the user has to know of it, else empty.

    On a GPU that runs out of memory it goes on with the CPU for good: an answer a second late beats none.
    """

    def __init__(self, method: Method, name: str, device: str = "", on_cpu: Callable[[], Method] | None = None,
                 warning: str = "") -> None:
        self._method, self._on_cpu = method, on_cpu
        self._name, self._device, self.warning = name, device, warning

    @property
    def description(self) -> str:
        """What it is and where it runs."""
        return f"{self._name} on {self._device}" if self._device else self._name

    def complete(self, points: NDArray, labels: NDArray, sources: NDArray) -> Completion:
        """As `Method.complete`."""
        try:
            return self._method.complete(points, labels, sources)
        except RuntimeError as error:
            if self._on_cpu is None or not _is_out_of_memory(error):
                raise
        self._method, self._on_cpu = self._on_cpu(), None
        self._device, self.warning = "cpu", OUT_OF_MEMORY
        return self._method.complete(points, labels, sources)


def make_method(values: Mapping[str, Any]) -> ChosenMethod:
    """Load, check and warm up what the parameters ask for. Raises UsxError for files or devices that cannot be used."""
    if values["method"] == "usx":
        return _network(values)
    model, metadata = load_shape_model(parameters.model_path(values))
    method = ShapeModelCompletion(model, parameters.completion_settings(values))
    return ChosenMethod(method, f"shape model of {metadata['count']} spines")


def usual_partial(model: ShapeModel) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Points, labels and sources of the mean spine: arches as ultrasound sees them, bodies flattened onto one plane."""
    pose, points, labels, sources = identity(), [], [], []
    for index, level in enumerate(LEVELS):
        placed = apply(pose, model.means[index])
        for source, part in ((SOURCE_ULTRASOUND, placed[~model.body]), (SOURCE_XRAY, placed[model.body] * [0, 1, 1])):
            points.append(part)
            labels.append(np.full(len(part), label_of_level(level)))
            sources.append(np.full(len(part), source))
        if index + 1 < len(LEVELS):
            pose = pose @ usual_step(model, index)
    return np.concatenate(points), np.concatenate(labels), np.concatenate(sources)


def _network(values: Mapping[str, Any]) -> ChosenMethod:
    from usx_completion.correction.completion import CorrectionCompletion  # torch takes a second to import

    path, device = parameters.weights_path(values), _device(values["device"])
    method, warning = CorrectionCompletion.load(path, "cpu", parameters.observation_settings(values)), ""
    if device != "cpu":
        try:
            method = method.moved_to(device)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise UsxError(f"device {device} cannot be used: {error}") from error
            method, device, warning = method.moved_to("cpu"), "cpu", OUT_OF_MEMORY
    chosen = ChosenMethod(method, f"network {path.name}", device,
                          None if device == "cpu" else lambda: method.moved_to("cpu"), warning)
    model, _ = load_shape_model(parameters.PACKAGED_REAL)
    chosen.complete(*usual_partial(model))  # compiled kernels and the GPU's context are ready before the first spine
    return chosen


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UsxError("device is 'cuda', but torch finds no GPU that it can use; set it to 'auto' or 'cpu'")
    return name


def _is_out_of_memory(error: RuntimeError) -> bool:
    """PyTorch's own error, and what CUDA's libraries say when they get no memory for themselves."""
    import torch

    return isinstance(error, torch.cuda.OutOfMemoryError) or any(text in str(error) for text in NO_MEMORY)
