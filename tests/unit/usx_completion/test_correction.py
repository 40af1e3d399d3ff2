"""The correction network: what it reads, that it starts from the prior, and that it moves with the spine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, vertex_normals
from usx_completion.correction import reading, suggestion
from usx_completion.correction.completion import CorrectionCompletion
from usx_completion.correction.learner import CorrectionConfiguration, CorrectionLearner, DataSettings, Pools
from usx_completion.correction.loss import LossSettings, correction_loss, true_normals
from usx_completion.correction.network import CorrectionNetwork, NetworkSettings, StageSettings, _motion
from usx_completion.correction.nodes import choose_nodes
from usx_completion.correction.pool import preset_recipe
from usx_completion.correction.reading import Batch
from usx_completion.correction.scene import make_scene, observation_of
from usx_completion.correction.weights import card_of, load_network
from usx_completion.data.partial_spine import partial_spine
from usx_completion.data.presets import PAPER
from usx_completion.evaluation.case import CaseInput
from usx_completion.evaluation.methods import MethodOptions, open_methods
from usx_completion.shape_model import PACKAGED_REAL, load_shape_model
from usx_completion.training.learner import Step
from usx_completion.training.weights import BadWeights, save_weights

SMALL = NetworkSettings(stages=(StageSettings(160, 16, 1), StageSettings(240, 24, 1)), width=32, heads=2, modes=10)


@pytest.fixture(scope="module")
def network(real_model):
    torch.manual_seed(3)
    network = CorrectionNetwork(real_model, SMALL)
    with torch.no_grad():  # heads begin at zero; here they shall do something
        for stage in network.stages:
            for head in (stage.to_node, stage.to_level, stage.to_spine):
                head[-1].weight.normal_(0.0, 0.02)
    return network.eval()


def test_nodes_share_every_vertex_out(real_model):
    nodes = choose_nodes(real_model, 300, 30)
    again = choose_nodes(real_model, 300, 30)
    assert np.array_equal(nodes.vertices, again.vertices) and len(np.unique(nodes.vertices)) == 300
    np.testing.assert_allclose(nodes.spread_weights.sum(axis=1), 1.0, atol=1e-6)
    assert nodes.tokens == 30 and set(nodes.cluster) == set(range(30))
    assert (nodes.spread_weights[nodes.vertices, 0] > 0.8).all()  # a node answers for itself
    with pytest.raises(UsxError, match="5000 nodes"):
        choose_nodes(real_model, 5000, 30)


def test_motions_are_those_of_the_rotation_vector():
    numbers = torch.randn(7, 6, dtype=torch.float64)
    found = _motion(numbers.float()).numpy()
    for row, matrix in zip(numbers.numpy(), found, strict=True):
        np.testing.assert_allclose(matrix[:3, :3], Rotation.from_rotvec(0.1 * row[:3]).as_matrix(), atol=1e-6)
        np.testing.assert_allclose(matrix[:3, 3], 5.0 * row[3:], atol=1e-5)


def test_an_untrained_network_without_trust_answers_with_the_prior_where_it_was_placed(real_model, examples):
    network = CorrectionNetwork(real_model, SMALL)
    for stage in network.stages:
        torch.nn.init.zeros_(stage.trust)
        torch.nn.init.constant_(stage.to_node[-1].bias, -30.0)
        stage.to_node[-1].bias.data[:4] = 0.0
    with torch.inference_mode():
        answer = network.vertices(network(Batch.of([examples[0].scene]))[-1])[0].numpy()
    poses = examples[0].scene.poses
    expected = real_model.means @ poses[:, :3, :3].transpose(0, 2, 1) + poses[:, None, :3, 3]
    np.testing.assert_allclose(answer, expected, atol=1e-3)


def test_a_batch_answers_as_its_members_do(network, examples):
    with torch.inference_mode():
        both = network.vertices(network(Batch.of([e.scene for e in examples]))[-1])
        each = [network.vertices(network(Batch.of([e.scene]))[-1]) for e in examples]
    np.testing.assert_allclose(both.numpy(), torch.cat(each).numpy(), atol=2e-3)


def test_the_answer_moves_with_the_spine(network, examples):
    scene = examples[1].scene
    turn, move = Rotation.from_euler("xyz", [20.0, -35.0, 50.0], degrees=True).as_matrix(), np.array([80.0, -40, 300])
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = turn, move
    plane = scene.plane @ turn.T
    plane[0] += move
    elsewhere = replace(scene, points=(scene.points @ turn.T + move).astype(np.float32),
                        plane=plane.astype(np.float32), poses=motion @ scene.poses)
    with torch.inference_mode():
        here = network.vertices(network(Batch.of([scene]))[-1])[0].numpy()
        there = network.vertices(network(Batch.of([elsewhere]))[-1])[0].numpy()
    # the tilt of a level is told to the network; all else must not depend on where the spine lies
    moved = here @ turn.T + move
    assert np.abs(there - moved).mean() < 0.2 and np.abs(here - scene.points.mean(axis=0)).max() > 20.0


def test_a_translated_spine_gets_the_same_answer(network, examples):
    scene, move = examples[0].scene, np.array([64.0, -32.0, 128.0], np.float32)  # exact in float32
    plane = scene.plane.copy()
    plane[0] += move
    poses = scene.poses.copy()
    poses[:, :3, 3] += move
    with torch.inference_mode():
        here = network.vertices(network(Batch.of([scene]))[-1])[0].numpy()
        there = network.vertices(network(Batch.of([replace(scene, points=scene.points + move, plane=plane,
                                                           poses=poses)]))[-1])[0].numpy()
    np.testing.assert_allclose(there, here + move, atol=5e-2)


def test_a_hidden_xray_has_no_say(network, examples):
    scene = replace(examples[0].scene, shown=np.zeros(len(LEVELS), bool))
    other = replace(scene, outlines=scene.outlines + 7.0)
    with torch.inference_mode():
        first, second = (network.vertices(network(Batch.of([s]))[-1]) for s in (scene, other))
    assert torch.equal(first, second)


def test_nearest_points_are_the_nearest(examples, real_model):
    scene = examples[0].scene
    batch = Batch.of([scene])
    nodes = choose_nodes(real_model, 160, 16).vertices
    places = torch.from_numpy(real_model.means[:, nodes].astype(np.float32))[None]
    normals = torch.from_numpy(np.stack([vertex_normals(Mesh(m, real_model.faces))[nodes] for m in real_model.means])
                               .astype(np.float32))
    features, exist = reading.see_ultrasound(batch, batch.poses, places, normals, np.arange(0, 160, 2), 4)
    pose = scene.poses[2]
    world = real_model.means[2, nodes] @ pose[:3, :3].T + pose[:3, 3]
    gaps = np.linalg.norm(world[:, None] - scene.points[None], axis=2)
    close = gaps.min(axis=1) < 15.0  # farther ones are cut off by the reach of the level
    assert close.sum() > 50 and exist[0, 2].numpy()[close].all()
    found = features[0, 2, :, 0, 4].numpy()
    np.testing.assert_allclose(found[close] / reading.CENTIMETRE, gaps.min(axis=1)[close], atol=1e-2)


def test_the_suggested_step_brings_a_displaced_level_back(real_model):
    """Points that lie on the mean vertebra itself, which is turned and moved away from them by a known small motion."""
    places = torch.from_numpy(real_model.means[:, ::4].astype(np.float32))[None]
    normals = np.stack([vertex_normals(Mesh(m, real_model.faces))[::4] for m in real_model.means]).astype(np.float32)
    asked = torch.tensor([0.2, -0.1, 0.15, 0.3, -0.2, 0.25])
    motion = _motion(asked[None])[0]
    target = places @ motion[:3, :3].T + motion[:3, 3]
    offset = (target - places) * reading.CENTIMETRE
    facing = torch.from_numpy(normals)[None]
    along = (offset * facing).sum(dim=-1, keepdim=True)
    distance = offset.norm(dim=-1, keepdim=True)
    near = torch.cat([offset, along, distance, torch.zeros(*offset.shape[:3], 6)], dim=-1)[..., None, :]
    near[..., 9:] = 1.0
    everywhere = torch.ones(near.shape[:3])
    equations = [suggestion.ultrasound_equations(near, everywhere, facing[0], torch.tensor(60.0), torch.tensor(0.8))]
    found = suggestion.suggested_step(equations, places, torch.zeros(5, 0, places.shape[2], 3), torch.zeros(1, 5, 0),
                                      torch.zeros(1, 3), torch.ones(3))
    assert found.step.shape == (1, 5, 6) and (found.shares > 0.3).all() and float(found.xray.abs().max()) == 0.0
    np.testing.assert_allclose(found.step[0].numpy(), np.tile(asked, (5, 1)), atol=0.08)


def test_the_step_of_all_levels_and_the_xray_is_that_of_the_whole_system():
    """Against numpy's solution of the dense system of five levels and the displacement they share."""
    random = np.random.default_rng(8)
    nodes, modes, levels = 40, 3, 5
    size = 6 + modes
    places = 20.0 * random.standard_normal((1, levels, nodes, 3))
    basis = random.standard_normal((levels, modes, nodes, 3))
    scores, xray, precision = random.standard_normal((1, levels, modes)), np.array([[1.0, -2.0, 0.02]]), [1.0, 2.0, 3.0]
    rows = np.sort(random.choice(nodes, 15, replace=False))
    kinds = []
    for chosen in (np.arange(nodes), rows):
        facing = random.standard_normal((1, levels, len(chosen), 3))
        kinds.append((chosen, facing, random.standard_normal(facing.shape[:3]), random.uniform(0, 1, facing.shape[:3]),
                      random.standard_normal(facing.shape)))
    dense, wanted = np.zeros((levels * size + 3,) * 2), np.zeros(levels * size + 3)
    for level in range(levels):
        own = slice(level * size, (level + 1) * size)
        dense[own, own] += np.eye(size)
        wanted[own] -= np.r_[np.zeros(6), scores[0, level]]
        for number, (chosen, facing, residual, weight, shared) in enumerate(kinds):
            jacobian = np.zeros((len(chosen), levels * size + 3))
            direction = facing[0, level]
            jacobian[:, own] = np.c_[0.1 * np.cross(0.1 * places[0, level, chosen], direction), 0.5 * direction,
                                     0.1 * np.einsum("kmc,mc->mk", basis[level][:, chosen], direction)]
            jacobian[:, levels * size:] = shared[0, level] * number  # the first kind has none
            scaled = weight[0, level] * 5.0 / max(weight[0, level].sum(), 5.0) / suggestion.NOISE**2
            dense += jacobian.T @ (scaled[:, None] * jacobian)
            wanted += jacobian.T @ (scaled * residual[0, level])
    dense[-3:, -3:] += np.diag(precision)
    wanted[-3:] -= np.array(precision) * xray[0] / [3.0, 3.0, 0.05]
    expected = np.linalg.solve(dense, wanted)

    def tensor(array):
        return torch.from_numpy(np.asarray(array, np.float64))

    equations = [suggestion.Equations(tensor(facing), tensor(residual), tensor(weight), tensor(5.0),
                                      torch.from_numpy(chosen), tensor(shared) if number else None)
                 for number, (chosen, facing, residual, weight, shared) in enumerate(kinds)]
    found = suggestion.suggested_step(equations, tensor(places), tensor(basis), tensor(scores), tensor(xray),
                                      tensor(precision))
    np.testing.assert_allclose(found.step[0].numpy().ravel(), expected[:-3], atol=1e-5)
    np.testing.assert_allclose(found.xray[0].numpy(), expected[-3:], atol=1e-5)


def test_what_a_displacement_adds_is_the_derivative_of_what_is_left(real_model, examples):
    batch = Batch.of([examples[0].scene])
    places = torch.from_numpy(real_model.means[:, ::4].astype(np.float32))[None]
    zero = torch.zeros(1, 3)
    rim, less = reading.see_xray(batch, batch.poses, places, zero)
    for axis, unit in enumerate(suggestion.displacement_units(zero)):
        small = torch.zeros(1, 3)
        small[0, axis] = 0.02 * unit
        change = (reading.see_xray(batch, batch.poses, places, small)[0] - rim)[..., 8] / 0.02
        near = rim[..., :2].norm(dim=-1) < 0.6
        # another outline point may be the nearest by then: nearly all nodes, not all
        close = (change + less[..., axis]).abs()[near] < 0.02
        assert close.float().mean() > 0.9 and less[..., axis].abs().max() > 0.02


def test_the_suggested_step_follows_the_xray_where_the_body_shows(real_model, examples):
    """The prior at the true place but 3 mm too far back and 2 mm too high: outlines alone bring it back."""
    example = examples[0]
    scene = example.scene
    poses = []
    for mean, true in zip(real_model.means, example.vertices.astype(float), strict=True):
        turn, _ = Rotation.align_vectors(true - true.mean(axis=0), mean - mean.mean(axis=0))
        pose = np.eye(4)
        pose[:3, :3] = turn.as_matrix()
        pose[:3, 3] = true.mean(axis=0) - turn.as_matrix() @ mean.mean(axis=0) + [0.0, 3.0, 2.0]
        poses.append(pose)
    batch = Batch.of([replace(scene, poses=np.stack(poses))])
    places = torch.from_numpy(real_model.means[:, ::4].astype(np.float32))[None]
    shown = torch.from_numpy(real_model.xray_bodies[:, ::4])
    body = suggestion.BodyNodes(torch.arange(places.shape[2]), shown)
    outlines = reading.see_xray(batch, batch.poses, places, torch.zeros(1, 3))
    seen = [suggestion.xray_equations(outlines, torch.ones(places.shape[:3]), places, body, torch.tensor(30.0),
                                      torch.tensor(1.6))]
    found = suggestion.suggested_step(seen, places, torch.zeros(5, 0, places.shape[2], 3), torch.zeros(1, 5, 0),
                                      torch.zeros(1, 3), torch.full((3,), 1e6))  # an X-ray that is known not to move
    step = found.step[0]
    moved = _motion(step[:, :6]).numpy()
    centre = real_model.means[:, real_model.body].mean(axis=1)
    turned = np.einsum("lij,lj->li", moved[:, :3, :3], centre) + moved[:, :3, 3] - centre
    shift = np.einsum("lij,lj->li", np.stack(poses)[:, :3, :3], turned).mean(axis=0)
    # more than half of the way in one step, and not across the X-ray, which does not tell
    assert np.linalg.norm(shift[1:] + [3.0, 2.0]) < 0.5 * np.hypot(3.0, 2.0) and abs(shift[0]) < 0.5


def test_a_corrected_outline_is_turned_about_the_middle(examples):
    batch = Batch.of([examples[0].scene])
    moved, normals = reading.corrected_outlines(batch, torch.tensor([[3.0, -2.0, np.pi / 2]]))
    middle = batch.outlines[0].mean(dim=(0, 1))
    offset = batch.outlines[0] - middle
    expected = torch.stack([-offset[..., 1], offset[..., 0]], dim=-1) + middle + torch.tensor([3.0, -2.0])
    assert torch.allclose(moved[0], expected, atol=1e-3) and torch.allclose(normals[0].norm(dim=-1), torch.ones(5, 72))


def test_a_scene_tells_the_observation_that_it_was_made_of(real_model, examples):
    for example in examples:
        again, reasons = make_scene(real_model, observation_of(example.scene))
        for name in ("points", "labels", "outlines", "outline_normals", "shown", "plane"):
            assert np.array_equal(getattr(again, name), getattr(example.scene, name)), name
        assert not reasons


def test_the_loss_is_nothing_at_the_truth(real_model, network, examples):
    batch = Batch.of([examples[0].scene])
    states = network(batch)
    truth = network.vertices(states[-1]).detach()
    normals = true_normals(truth, network.faces)[0, 3]
    np.testing.assert_allclose(normals, vertex_normals(Mesh(truth[0, 3].double().numpy(), real_model.faces)), atol=1e-3)
    parts = correction_loss(network, batch, states, truth, torch.zeros(1, 5, 2), LossSettings(stages=(0.0, 1.0)))
    assert float(parts["normal"]) < 1e-4 and float(parts["place"]) < 1e-3
    parts["total"].backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_weights_there_and_back_and_damaged_ones(tmp_path, network, real_model, examples):
    path = tmp_path / "net.safetensors"
    save_weights(path, network.state_dict(), {**card_of(network, "abc"), "data": "none"})
    loaded, card = load_network(path, real_model, "abc")
    assert card["data"] == "none"
    with torch.inference_mode():
        before, after = (n.vertices(n(Batch.of([examples[0].scene]))[-1]) for n in (network, loaded))
    assert torch.equal(before, after)
    with pytest.raises(BadWeights, match="another shape model"):
        load_network(path, real_model, "abd")
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BadWeights, match="SHA-256"):
        load_network(path, real_model, "abc")
    path.write_bytes(b"nothing")
    with pytest.raises(BadWeights, match="safetensors"):
        load_network(path, real_model, "abc")


def test_completion_answers_five_levels_or_says_why_not(network, real_model, maker):
    spines = maker._spines["real", "paper"]
    truth, observed = spines.examined(0)
    cloud = partial_spine(observed, maker._chains["real"], PAPER.crop, 5)
    completion = CorrectionCompletion(network, real_model)
    answer = completion.complete(*cloud)
    assert set(answer.levels) == set(LEVELS) and not answer.reasons
    for level in LEVELS:
        centre = truth.meshes[level].vertices.mean(axis=0)
        assert np.linalg.norm(answer.levels[level].mesh.vertices.mean(axis=0) - centre) < 15.0
        assert (answer.levels[level].sigma > 0).all()
    few = cloud[1] != 22
    without = completion.complete(cloud[0][few], cloud[1][few], cloud[2][few])
    assert "L3" not in without.levels and "L3" in without.reasons


def test_a_learner_gives_the_same_batches_in_any_number_of_processes(examples):
    settings = CorrectionConfiguration(SMALL, LossSettings(stages=(0.5, 1.0)))
    learner = CorrectionLearner(settings, Pools([examples], np.ones(1), examples), 2, 5, torch.device("cpu"))
    whole = next(learner.batches(3, 0, 1))
    parts = [next(learner.batches(3, rank, 2)) for rank in range(2)]
    for k, part in enumerate(parts):
        assert torch.equal(whole.scenes.points[k], part.scenes.points[0])
        assert torch.equal(whole.truth[k], part.truth[0])
    before = learner.validate()
    assert before["normal"] < before["place"] < 8.0 and before["blind_normal"] > 0.0
    assert 0.0 < before["sigma_power"] < 2.0 and before["sigma_factor_1"] > 0.0
    assert 0.6 < before["within_two_sigma"] <= 1.0
    optimiser = torch.optim.Adam(learner.module.parameters(), 3e-3)
    first = float(learner.loss(whole, Step(0, 10))["total"])
    for step in range(8):
        loss = learner.loss(whole, Step(step, 10))["total"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss) < 0.9 * first
    with pytest.raises(UsxError, match="stages"):
        CorrectionLearner(CorrectionConfiguration(SMALL), Pools([examples], np.ones(1), examples), 2, 5,
                          torch.device("cpu"))


def test_pools_are_drawn_from_as_their_shares_say(examples, monkeypatch):
    monkeypatch.setattr("usx_completion.correction.learner.read_pool",
                        lambda folder, most: examples[:1] if folder.parent.name == "first" else examples[1:])
    seeds = {"first/train": 3, "first/val": 4, "second/train": 5, "second/val": 6}
    monkeypatch.setattr("usx_completion.correction.learner.identity_of",
                        lambda folder: replace(preset_recipe().identity(7), seed=seeds[str(folder)]))
    folders = (Path("first"), Path("second"))
    pools = Pools.read(folders, DataSettings(shares=(1.0, 3.0)))
    random = np.random.default_rng(3)
    drawn = [pools.draw(random) is examples[0] for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(0.25, abs=0.06) and len(pools.validation) == len(examples)
    sizes = Pools.read(folders, DataSettings()).shares
    assert sizes == pytest.approx(np.array([1, len(examples) - 1]) / len(examples))
    assert pools.origins[1].startswith(f"{len(examples) - 1} of paper, realistic, seed 5, ")
    seeds["second/train"] = 4
    with pytest.raises(UsxError, match="first/val holds people of second/train: both were made with seed 4; "):
        Pools.read(folders, DataSettings())
    with pytest.raises(UsxError, match=r"data.shares = .* a number for each folder of --data, .* 2: first, second"):
        Pools.read(folders, DataSettings(shares=(1.0,)))
    for shares in ((0.0, 1.0), (float("nan"), 1.0)):
        with pytest.raises(UsxError, match="shares"):
            DataSettings(shares=shares)


def test_the_evaluation_opens_weights_by_name(tmp_path, network, maker, monkeypatch):
    monkeypatch.setattr("usx_completion.evaluation.networks.PACKAGED", tmp_path / "nothing" / "model")
    _, observed = maker._spines["real", "paper"].examined(0)
    sha = load_shape_model(PACKAGED_REAL)[1]["sha256"]
    missing = open_methods(["usx"], MethodOptions(weights=tmp_path))
    assert missing[0] == [] and "train --config usx" in missing[1][0]
    save_weights(tmp_path / "usx.safetensors", network.state_dict(), card_of(network, sha))
    with pytest.raises(BadWeights, match=r"usx.safetensors: its card tells no scale of sigma .*; train again"):
        open_methods(["usx"], MethodOptions(weights=tmp_path))
    validation = {"validation": json.dumps({"sigma_power": 1.0, "sigma_factor_unseen": 2.0, "residual_1": 0.5,
                                            "sigma_factor_1": 1.5})}
    save_weights(tmp_path / "usx.safetensors", network.state_dict(), {**card_of(network, sha), **validation})
    (method,), notes = open_methods(["usx"], MethodOptions(weights=tmp_path))
    given = CaseInput({}, *partial_spine(observed, maker._chains["real"], PAPER.crop, 5))
    assert not notes and set(method.complete(given)) == set(LEVELS)


@pytest.mark.parametrize("values", [{"validated": 0}, {"validated": 10**6}, {"most": -1}])
def test_sizes_of_the_data_that_make_no_sense_are_refused(values):
    with pytest.raises(UsxError, match="DataSettings"):
        DataSettings(**values)


def test_size_is_a_column_of_the_step_for_each_axis(real_model):
    network = CorrectionNetwork(real_model, SMALL)
    assert len(network.modes) == SMALL.modes + 3 and network.mode_sd.shape[1] == SMALL.modes + 3
    usual = torch.from_numpy(real_model.means.mean(axis=0).astype(np.float32))
    for axis in range(3):
        expected = torch.zeros_like(usual)
        expected[:, axis] = 0.05 * usual[:, axis]
        assert torch.allclose(network.modes[SMALL.modes + axis], expected, atol=1e-5)
    assert len(CorrectionNetwork(real_model, replace(SMALL, size_sd=0.0)).modes) == SMALL.modes
    with pytest.raises(UsxError, match="size_sd"):
        replace(SMALL, size_sd=0.5)
