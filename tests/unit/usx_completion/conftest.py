"""One generated spine that the shape model has not seen, and its simulated partial cloud."""

from __future__ import annotations

import numpy as np
import pytest

from usx_common.meshes import Mesh
from usx_completion.completion import ShapeModelCompletion
from usx_completion.shape_model import PACKAGED_REAL, load_shape_model
from usx_completion.simulated_partial import simulate_partial

HELD_OUT_SEED = 321


@pytest.fixture(scope="session")
def shape_model():
    return load_shape_model()[0]


@pytest.fixture(scope="session")
def held_out_spine():
    from usx_phantom.spine import sample_spine

    meshes = sample_spine(HELD_OUT_SEED).meshes
    centre = np.mean([mesh.vertices.mean(axis=0) for mesh in meshes.values()], axis=0)
    return {level: Mesh(mesh.vertices - centre, mesh.faces) for level, mesh in meshes.items()}


@pytest.fixture(scope="session")
def partial(held_out_spine):
    return simulate_partial(held_out_spine)


@pytest.fixture(scope="session")
def method(shape_model):
    return ShapeModelCompletion(shape_model)


@pytest.fixture(scope="session")
def completion(method, partial):
    return method.complete(partial.points, partial.labels, partial.sources)


@pytest.fixture(scope="session")
def data_spine(shape_model):
    """A spine of the model's sampler, about its middle, as data generation takes it."""
    from usx_completion.data.model_spines import ModelSpines
    from usx_completion.data.spine_sample import centred

    return centred(ModelSpines(3_000_000).sample(1))


@pytest.fixture(scope="session")
def data_chain(shape_model):
    from usx_completion.data.mean_chain import MeanChain

    return MeanChain.of(shape_model)


@pytest.fixture(scope="module")
def real_model():
    return load_shape_model(PACKAGED_REAL)[0]


@pytest.fixture(scope="module")
def maker(real_model):
    """Training examples of the correction network, of people kept for tests."""
    from usx_completion.correction.examples import ExampleMaker

    return ExampleMaker(real_model, 1900)


@pytest.fixture(scope="module")
def examples(maker):
    return [maker.example(number) for number in range(2)]
