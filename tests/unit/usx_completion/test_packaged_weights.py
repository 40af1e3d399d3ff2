"""The weights that are shipped: their cards, their size, and that they do what they are shipped for."""

from __future__ import annotations

import json

import numpy as np
import pytest

from usx_common.levels import LEVELS, SOURCE_XRAY
from usx_completion.completion import place_mean
from usx_completion.correction.completion import CorrectionCompletion
from usx_completion.correction.weights import FORMAT
from usx_completion.data.online import OnlineSpines
from usx_completion.data.partial_spine import partial_spine
from usx_completion.data.presets import PAPER, SampleSettings
from usx_completion.data.spine_source import SourceChoice, mean_chain_of
from usx_completion.metrics import SampledSurface, mean_surface_distances
from usx_completion.shape_model import PACKAGED_REAL, load_shape_model
from usx_completion.training.weights import load_weights

WEIGHTS = PACKAGED_REAL.with_name("usx.safetensors")
TEST_SEED = 1900  # kept for tests: nothing was trained on it


@pytest.fixture(scope="module")
def model():
    return load_shape_model(PACKAGED_REAL)


@pytest.fixture(scope="module")
def spine():
    """True meshes and partial spine of a person kept for tests, preset `paper`."""
    spines = OnlineSpines(TEST_SEED, SampleSettings(PAPER), SourceChoice("real", TEST_SEED))
    truth, observed = spines.examined(0)
    return truth.meshes, partial_spine(observed, mean_chain_of(spines.source), PAPER.crop, 5)


def test_all_weights_together_are_small():
    assert sum(path.stat().st_size for path in PACKAGED_REAL.parent.glob("*.safetensors")) < 16e6


def test_the_card_says_what_the_weights_were_learned_from(model):
    tensors, card = load_weights(WEIGHTS, FORMAT)
    assert sum(tensor.numel() for tensor in tensors.values()) == pytest.approx(1.7e6, rel=0.03)  # as its page says
    assert card["shape_model"] == model[1]["sha256"] and card["licence"].startswith("CC BY-SA 4.0")
    assert "verse008" in model[1]["left_out"] and "verse009" in model[1]["left_out"]
    figures = json.loads(card["validation"])
    assert int(card["examples"]) >= 1000 and 0.3 < figures["sigma_scale"] < 3.0
    licences = PACKAGED_REAL.with_name("LICENCES.txt").read_text()
    assert WEIGHTS.name in licences


def test_they_complete_a_person_that_nothing_was_trained_on(model, spine):
    truth, cloud = spine
    completion = CorrectionCompletion.load(WEIGHTS)
    answers = {"both": completion.complete(*cloud).levels}
    ultrasound = cloud[2] != SOURCE_XRAY
    answers["blind"] = completion.complete(*(column[ultrasound] for column in cloud)).levels
    answers["mean"] = place_mean(model[0], *cloud).levels
    error = {}
    for name, levels in answers.items():
        assert list(levels) == list(LEVELS)
        error[name] = np.mean([mean_surface_distances(SampledSurface.of(truth[level]), SampledSurface.of(mine.mesh))
                               ["whole"] for level, mine in levels.items()])
    assert error["both"] < 1.1 and error["both"] < 0.8 * error["mean"] and error["both"] < error["blind"] < 1.6


def test_sigma_tells_where_the_errors_are(model, spine):
    """No proof of calibration, for which one person is too few: the surest half of the vertices is nearer."""
    truth, cloud = spine
    levels = CorrectionCompletion.load(WEIGHTS).complete(*cloud).levels
    errors = np.concatenate([SampledSurface.of(truth[level]).nearest(mine.mesh.vertices)[0]
                             for level, mine in levels.items()])
    sigma = np.concatenate([mine.sigma for mine in levels.values()])
    sure = sigma < np.median(sigma)
    assert errors[sure].mean() < 0.75 * errors[~sure].mean()
    assert 0.5 < np.mean(errors <= sigma) < 0.85 and np.mean(errors <= 2.0 * sigma) > 0.85
