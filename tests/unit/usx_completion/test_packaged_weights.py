"""The weights that are shipped: their cards, their size, and that they do what they are shipped for."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import open3d
import pytest
import trimesh
from scipy.spatial import cKDTree

from usx_common.levels import LEVELS, SOURCE_XRAY, label_of_level
from usx_completion.completion import place_mean
from usx_completion.contact import TOLERATED_MM
from usx_completion.correction.calibration import SigmaScale, scale_of
from usx_completion.correction.completion import CorrectionCompletion
from usx_completion.correction.learner import CorrectionConfiguration
from usx_completion.correction.weights import FORMAT
from usx_completion.data.online import OnlineSpines
from usx_completion.data.partial_spine import partial_spine
from usx_completion.data.presets import PAPER, SampleSettings
from usx_completion.data.spine_source import SourceChoice, mean_chain_of
from usx_completion.methods import usual_partial
from usx_completion.metrics import SampledSurface, mean_surface_distances
from usx_completion.observation import BadPartial
from usx_completion.paper.completion import PaperCompletion
from usx_completion.shape_model import PACKAGED_REAL, load_shape_model
from usx_completion.training.configuration import as_text, build, find_configuration, read_configuration
from usx_completion.training.settings import TrainingSettings
from usx_completion.training.weights import load_weights

WEIGHTS = PACKAGED_REAL.with_name("usx.safetensors")
TEST_SEED = 1900  # kept for tests: nothing was trained on it


@pytest.fixture(scope="module")
def model():
    return load_shape_model(PACKAGED_REAL)


def examined(number):
    """True meshes and partial spine of a person kept for tests, preset `paper`."""
    spines = OnlineSpines(TEST_SEED, SampleSettings(PAPER), SourceChoice("real", TEST_SEED))
    truth, observed = spines.examined(number)
    return truth.meshes, partial_spine(observed, mean_chain_of(spines.source), PAPER.crop, 5)


@pytest.fixture(scope="module")
def spine():
    return examined(0)


def test_all_weights_together_are_small():
    assert sum(path.stat().st_size for path in PACKAGED_REAL.parent.glob("*.safetensors")) < 16e6


def test_the_card_says_what_the_weights_were_learned_from(model):
    tensors, card = load_weights(WEIGHTS, FORMAT)
    assert sum(tensor.numel() for tensor in tensors.values()) == pytest.approx(1.7e6, rel=0.03)  # as its page says
    assert card["shape_model"] == model[1]["sha256"] and card["licence"].startswith("CC BY-SA 4.0")
    assert "verse008" in model[1]["left_out"] and "verse009" in model[1]["left_out"]
    figures = json.loads(card["validation"])
    assert int(card["examples"]) >= 1000 and all(0.3 < figures[f"sigma_factor_{group}"] < 3.0 for group in (1, 2, 3))
    licences = PACKAGED_REAL.with_name("LICENCES.txt").read_text()
    assert WEIGHTS.name in licences


@pytest.mark.parametrize("variant", ["baseline", "ef", "lf", "ef_lf"])
def test_the_small_networks_of_the_paper_have_learned_something(spine, variant):
    """Rows to compare with: each is what its name says, and knows a vertebra that it has not seen."""
    path = PACKAGED_REAL.with_name(f"paper_small_{variant}.safetensors")
    completion = PaperCompletion.load(path)
    assert completion.variant == variant and completion.card["licence"].startswith("CC BY-SA 4.0")
    assert path.name in PACKAGED_REAL.with_name("LICENCES.txt").read_text()
    settings = SampleSettings(PAPER)
    spines = OnlineSpines(TEST_SEED, settings, SourceChoice("real", TEST_SEED))
    mine, other = (next(sample for sample in spines.spine(k) if sample.level == "L3") for k in (0, 1))
    apart = []
    for given in (mine.input, other.input):
        answer = completion.complete(given.partial, given.filled)
        assert answer.shape == (4096, 3)
        there, back = (cKDTree(a).query(b)[0] for a, b in ((answer, mine.complete), (mine.complete, answer)))
        apart.append(1e4 * (np.mean(there**2) + np.mean(back**2)))
    assert apart[0] < 14.0 and apart[0] < 0.8 * apart[1]  # it looks at what it is given: another person is farther off


def test_the_configuration_is_that_of_the_card():
    """`train --config usx` makes such weights."""
    sections = read_configuration(find_configuration("usx"))
    card = load_weights(WEIGHTS, FORMAT)[1]
    settings = build(CorrectionConfiguration, {name: sections[name] for name in ("network", "loss", "augment", "data")
                                               if name in sections}, "usx")
    assert card["training"] == as_text(build(TrainingSettings, sections["training"], "training"))
    assert card["loss"] == as_text(settings.loss) and card["augment"] == as_text(settings.augment)
    assert json.loads(card["network"]) | {"modes": settings.network.modes} == json.loads(as_text(settings.network))
    assert card["step"] == card["steps"] == str(sections["training"]["steps"])


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


def test_sigma_is_scaled_as_the_card_says(model, spine):
    cloud = spine[1]
    scaled = CorrectionCompletion.load(WEIGHTS)
    plain = CorrectionCompletion(scaled.network, model[0], SigmaScale())
    scale = scale_of(load_weights(WEIGHTS, FORMAT)[1])
    assert len(scale.residuals) == 3 and 0.5 < scale.power < 1.0  # docs/usx-network.md
    told, as_it_was = scaled.complete(*cloud).levels, plain.complete(*cloud).levels
    for level, mine in told.items():
        factor = mine.sigma / SigmaScale(scale.power).of(as_it_was[level].sigma, 1.0)
        np.testing.assert_allclose(factor, factor[0], rtol=1e-6)  # one for the level, of those that the card holds
        assert min(scale.factors) <= factor[0] * (1.0 + 1e-6) and factor[0] <= max(scale.factors) * (1.0 + 1e-6)


def _without(cloud, rows):
    return tuple(column[~rows] for column in cloud)


def test_a_half_seen_level_is_answered_less_surely_or_left_out_with_a_reason(spine):
    _, (points, labels, sources) = spine
    method = CorrectionCompletion.load(WEIGHTS)
    whole = method.complete(points, labels, sources)
    own = (sources != SOURCE_XRAY) & (labels == label_of_level("L3"))
    half = own & (points[:, 0] > np.median(points[own, 0]))
    left = method.complete(*_without((points, labels, sources), half))
    hidden = whole.levels["L3"].mesh.vertices[:, 0] > np.median(points[own, 0])
    assert left.levels["L3"].sigma[hidden].mean() > 1.03 * whole.levels["L3"].sigma[hidden].mean()
    none = method.complete(*_without((points, labels, sources), own))  # its body is still in the X-ray
    assert np.median(none.levels["L3"].sigma) > 1.3 * np.median(whole.levels["L3"].sigma)
    nothing = method.complete(*_without((points, labels, sources), labels == label_of_level("L3")))
    assert "points" in nothing.reasons["L3"] and set(nothing.levels) == set(LEVELS) - {"L3"}


def test_a_level_whose_body_cannot_be_outlined_is_still_answered(spine):
    _, (points, labels, sources) = spine
    body = np.flatnonzero((sources == SOURCE_XRAY) & (labels == label_of_level("L3")))
    most = np.zeros(len(points), bool)
    most[body[10:]] = True
    completion = CorrectionCompletion.load(WEIGHTS).complete(*_without((points, labels, sources), most))
    assert list(completion.levels) == list(LEVELS) and "L3" not in completion.reasons


def test_sigma_grows_where_the_xray_is_missing(spine):
    _, cloud = spine
    method = CorrectionCompletion.load(WEIGHTS)
    both, blind = method.complete(*cloud), method.complete(*_without(cloud, cloud[2] == SOURCE_XRAY))
    body = method.network.shown.numpy()
    for k, level in enumerate(LEVELS):
        assert blind.levels[level].sigma[body[k]].mean() > 1.05 * both.levels[level].sigma[body[k]].mean()


def test_sigma_shrinks_while_the_sweep_goes_on(spine):
    """The probe goes from head to foot: what is at the end of what has been seen is told less surely."""
    points, labels, sources = spine[1]
    method, seen, told = CorrectionCompletion.load(WEIGHTS), sources != SOURCE_XRAY, []
    heights = points[seen & (labels == label_of_level("L3")), 2]
    for share in (0.5, 0.75, 1.0):
        later = seen & (points[:, 2] < np.quantile(heights, 1.0 - share)) & (share < 1.0)
        told.append(method.complete(*_without((points, labels, sources), later)).levels["L3"].sigma.mean())
    assert told[0] > 1.02 * told[2] and told[1] > told[2]


def test_a_million_points_are_thinned_and_answered(spine):
    truth, (points, labels, sources) = spine
    random = np.random.default_rng(3)
    rows = np.flatnonzero(sources != SOURCE_XRAY)
    rows = np.concatenate([random.choice(rows, 1_000_000), np.flatnonzero(sources == SOURCE_XRAY)])
    completion = CorrectionCompletion.load(WEIGHTS).complete(points[rows] + random.normal(0.0, 0.2, (len(rows), 3)),
                                                             labels[rows], sources[rows])
    assert list(completion.levels) == list(LEVELS)
    gaps = [SampledSurface.of(truth[level]).nearest(mine.mesh.vertices)[0].mean()
            for level, mine in completion.levels.items()]
    assert np.mean(gaps) < 1.3


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.zeros((1, 3)), np.full((500, 3), np.nan),
                                    np.linspace(0, 100, 500)[:, None] * [0.0, 0.1, 1.0]],
                         ids=["empty", "one", "nan", "line"])
def test_clouds_that_cannot_be_used_are_refused_with_one_reason(points):
    with pytest.raises(BadPartial):
        CorrectionCompletion.load(WEIGHTS).complete(points, np.full(len(points), 20), np.zeros(len(points)))


def test_an_xray_alone_is_answered_less_surely(spine):
    truth, cloud = spine
    method = CorrectionCompletion.load(WEIGHTS)
    both, alone = method.complete(*cloud), method.complete(*_without(cloud, cloud[2] != SOURCE_XRAY))
    assert list(alone.levels) == list(LEVELS)
    few = _without(cloud, (cloud[2] != SOURCE_XRAY) & (np.cumsum(cloud[2] != SOURCE_XRAY) > 20))
    np.testing.assert_allclose(method.complete(*few).levels["L3"].mesh.vertices, alone.levels["L3"].mesh.vertices,
                               atol=0.02)  # a few stray echoes are none
    errors, sigma = [], []
    for level, mine in alone.levels.items():
        errors.append(SampledSurface.of(truth[level]).nearest(mine.mesh.vertices)[0])
        sigma.append(mine.sigma)
        assert mine.sigma.mean() > 1.5 * both.levels[level].sigma.mean()
    assert np.mean(errors) < 4.0 and np.mean(np.concatenate(errors) <= 2.0 * np.concatenate(sigma)) > 0.8


@pytest.mark.parametrize("number", [0, 2])
def test_answers_are_watertight_and_do_not_overlap(number):
    """But by about what joints tolerate, 0.3 mm, measured by another library."""
    levels = CorrectionCompletion.load(WEIGHTS).complete(*examined(number)[1]).levels
    meshes = [mine.mesh for mine in levels.values()]
    solids = [trimesh.Trimesh(mesh.vertices, mesh.faces, process=False) for mesh in meshes]
    assert len(solids) == 5 and all(solid.is_watertight and solid.volume > 0.0 for solid in solids)
    for upper, lower in pairwise(meshes):
        for one, other in ((upper, lower), (lower, upper)):
            scene = open3d.t.geometry.RaycastingScene()
            scene.add_triangles(other.vertices.astype(np.float32), other.faces.astype(np.uint32))
            inside = -scene.compute_signed_distance(one.vertices.astype(np.float32)).numpy()
            assert inside.max() < 2.0 * TOLERATED_MM


def test_answers_move_with_the_spine(spine):
    points, labels, sources = spine[1]
    method = CorrectionCompletion.load(WEIGHTS)
    here, move = method.complete(points, labels, sources), np.array([30.7, -11.3, 200.9])
    there = method.complete(points + move, labels, sources)
    for level, mine in here.levels.items():
        np.testing.assert_allclose(there.levels[level].mesh.vertices, mine.mesh.vertices + move, atol=0.02)
        moved = there.levels[level].level_to_spine[:3, 3] - mine.level_to_spine[:3, 3]
        np.testing.assert_allclose(moved, move, atol=0.02)


def test_ultrasound_without_labels_is_named_by_the_xray(spine):
    truth, (points, labels, sources) = spine
    named = np.where(sources == SOURCE_XRAY, labels, 0)
    completion = CorrectionCompletion.load(WEIGHTS).complete(points, named, sources)
    assert list(completion.levels) == list(LEVELS)
    gaps = [SampledSurface.of(truth[level]).nearest(mine.mesh.vertices)[0].mean()
            for level, mine in completion.levels.items()]
    assert np.mean(gaps) < 1.5


def test_ultrasound_without_labels_and_xray_is_counted_by_its_five_processes(model, spine):
    method, (points, labels, sources) = CorrectionCompletion.load(WEIGHTS), usual_partial(model[0])
    seen = sources != SOURCE_XRAY
    completion = method.complete(points[seen], np.zeros(seen.sum(), int), sources[seen])
    assert list(completion.levels) == list(LEVELS)
    for level, mine in completion.levels.items():
        own = points[seen & (labels == label_of_level(level))]
        assert np.median(SampledSurface.of(mine.mesh).nearest(own)[0]) < 1.0
    upper = seen & (points[:, 2] > np.median(points[seen, 2]))
    completion = method.complete(points[upper], np.zeros(upper.sum(), int), sources[upper])
    assert not completion.levels and all("the levels cannot be told" in completion.reasons[level] for level in LEVELS)
