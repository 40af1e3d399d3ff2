"""Methods of the completion node: a GPU that gives out, and the spine it warms up with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_completion import parameters
from usx_completion.completed import Completion
from usx_completion.methods import ChosenMethod, make_method, usual_partial
from usx_completion.shape_model import PACKAGED_REAL, load_shape_model

VALUES = {parameter.name: parameter.default for parameter in parameters.TABLE}
CLOUD = (np.zeros((1, 3)), np.zeros(1), np.zeros(1))


class Fails:
    def __init__(self, error):
        self.error, self.asked = error, 0

    def complete(self, points, labels, sources):
        self.asked += 1
        raise self.error


class Answers:
    def complete(self, points, labels, sources):
        return Completion({}, {"L1": "asked"})


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError("CUDA out of memory"),
                                   RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")])
def test_a_gpu_without_memory_is_left_for_the_cpu_once_and_for_all(error):
    gpu = Fails(error)
    method = ChosenMethod(gpu, "network", "cuda", Answers)
    assert method.description == "network on cuda"
    for _ in range(3):
        assert method.complete(*CLOUD).reasons == {"L1": "asked"}
    assert method.description == "network on cpu"
    assert gpu.asked == 1 and method.warning == "the GPU ran out of memory: on the CPU since"


@pytest.mark.parametrize("error, other", [(RuntimeError("another fault"), Answers), (UsxError("bad cloud"), Answers),
                                          (torch.cuda.OutOfMemoryError("on the CPU?"), None)])
def test_other_errors_are_not_hidden(error, other):
    method = ChosenMethod(Fails(error), "network", "cuda", other)
    with pytest.raises(type(error)):
        method.complete(*CLOUD)
    assert method.warning == ""


def test_both_methods_complete_the_usual_spine():
    model, _ = load_shape_model(PACKAGED_REAL)
    cloud = usual_partial(model)
    for name in ("shape_model", "usx"):
        method = make_method({**VALUES, "method": name, "device": "cpu"})
        assert set(method.complete(*cloud).levels) == set(LEVELS)
        assert ("cpu" in method.description) == (name == "usx")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(UsxError, match="no GPU"):
        make_method({**VALUES, "method": "usx", "device": "cuda"})


@pytest.mark.parametrize("error, told", [(torch.cuda.OutOfMemoryError("CUDA out of memory"), None),
                                         (RuntimeError("no kernel image is available"), "no kernel image")])
def test_a_gpu_that_is_full_or_broken_from_the_start(monkeypatch, error, told):
    def moved(self, device):
        if device == "cuda":
            raise error
        return self

    monkeypatch.setattr("usx_completion.methods._device", lambda name: "cuda")
    monkeypatch.setattr("usx_completion.correction.completion.CorrectionCompletion.moved_to", moved)
    if told:
        with pytest.raises(UsxError, match=told):
            make_method({**VALUES, "method": "usx"})
        return
    method = make_method({**VALUES, "method": "usx"})
    assert "out of memory" in method.warning and method.description == "network usx.safetensors on cpu"
    assert set(method.complete(*usual_partial(load_shape_model(PACKAGED_REAL)[0])).levels) == set(LEVELS)
