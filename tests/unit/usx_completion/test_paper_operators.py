"""The fast searches and layers against their plain definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from usx_common.clouds import farthest_points
from usx_common.errors import UsxError
from usx_completion.paper.attention import LevelUnit, NeighbourAttention, SelectiveKernels
from usx_completion.paper.draws import draw
from usx_completion.paper.encoder import CloudEncoder
from usx_completion.paper.geometry import find_levels
from usx_completion.paper.latent import Normal
from usx_completion.paper.loss import chamfer, divergence
from usx_completion.paper.search import FAST, _neighbours_in_parts, take
from usx_completion.paper.search_naive import NaiveSearch
from usx_completion.paper.settings import PaperNetworkSettings

NAIVE = NaiveSearch()


def clouds(count: int, batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(batch, count, 3)))


def test_neighbours_are_those_of_the_dense_matrix():
    references, queries = clouds(300), clouds(70, seed=1)
    assert torch.equal(FAST.neighbours(references, queries, 16), NAIVE.neighbours(references, queries, 16))
    assert torch.equal(FAST.neighbours(references, references, 16)[..., 0], torch.arange(300).expand(2, -1))


def test_the_parts_of_a_gpu_search_are_those_of_the_dense_matrix(monkeypatch):
    monkeypatch.setattr("usx_completion.paper.search.DISTANCES_AT_ONCE", 2 * 300 * 7)  # seven queries at a time
    references, queries = clouds(300).float(), clouds(70, seed=1).float()
    assert torch.equal(_neighbours_in_parts(references, queries, 16), NAIVE.neighbours(references, queries, 16))


def test_furthest_points_are_those_of_the_plain_loop():
    points = clouds(400)
    fast = FAST.farthest(points, 150)
    assert torch.equal(fast, NAIVE.farthest(points, 150))
    assert fast[1].tolist() == farthest_points(points[1].numpy(), 150).tolist()


def test_searches_refuse_what_has_no_answer():
    with pytest.raises(UsxError, match="17 points were asked of a cloud of 16"):
        FAST.neighbours(clouds(16), clouds(4), 17)
    with pytest.raises(UsxError, match="17 points were asked"):
        FAST.farthest(clouds(16), 17)
    broken = clouds(16)
    broken[0, 3, 1] = torch.nan
    with pytest.raises(UsxError, match="not finite"):
        FAST.neighbours(broken, clouds(4), 2)


def test_rows_are_taken_from_each_cloud_itself():
    values, index = clouds(9), torch.tensor([[[0, 8], [3, 3]], [[1, 2], [7, 0]]])
    taken = take(values, index)
    assert taken.shape == (2, 2, 2, 3)
    assert torch.equal(taken[1, 1, 0], values[1, 7]) and torch.equal(taken[0, 0, 1], values[0, 8])


@pytest.fixture(scope="module")
def sizes():
    return PaperNetworkSettings(level_points=(64, 32, 24), level_channels=(64, 128, 128, 128))


def test_levels_are_the_same_with_both_searches(sizes):
    points = clouds(200).float()
    for fast, naive in zip(find_levels(points, sizes, FAST), find_levels(points, sizes, NAIVE), strict=True):
        assert torch.equal(fast.neighbours, naive.neighbours)
        if fast.below is not None and naive.below is not None:
            for name in ("kept", "pooled", "nearest"):
                assert torch.equal(getattr(fast.below, name), getattr(naive.below, name))
            torch.testing.assert_close(fast.below.weights, naive.below.weights)


def test_interpolation_is_the_inverse_distance_mean(sizes):
    points = clouds(200, batch=1).float()
    below = find_levels(points, sizes, FAST)[0].below
    coarser = points[0, below.kept[0]]
    values = clouds(64, batch=1, seed=3)[..., :2].float()
    result = below.interpolate(values)
    assert torch.allclose(result[0, below.kept[0]], values[0], atol=1e-4)  # a kept point takes its own value
    other = next(n for n in range(200) if n not in below.kept[0])
    distance = (coarser - points[0, other]).norm(dim=1)
    near = distance.argsort()[:3]
    expected = (values[0, near] / distance[near, None]).sum(0) / (1.0 / distance[near]).sum()
    torch.testing.assert_close(result[0, other], expected)
    around = (points[0] - coarser[5]).norm(dim=1).argsort()[:10]  # the ten nearest, itself first
    assert torch.equal(below.pooled[0, 5], around)


def test_the_encoder_is_its_layers_on_repeated_features():
    torch.manual_seed(0)
    encoder = CloudEncoder(PaperNetworkSettings())
    points = clouds(50).float()
    local = encoder.second(functional.relu(encoder.first(points)))
    joined = torch.cat([local, local.amax(1, keepdim=True).expand_as(local)], dim=-1)
    third = functional.linear(joined, encoder.third.weight, encoder.third.bias)
    expected = encoder.fourth(functional.relu(third)).amax(1)
    torch.testing.assert_close(encoder(points), expected, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(encoder(points), expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(encoder(points), encoder(points.flip(1)))
    weight = torch.randn(1024)
    slopes = torch.autograd.grad((encoder(points) * weight).sum(), list(encoder.parameters()))
    plain = torch.autograd.grad((expected * weight).sum(), list(encoder.parameters()))
    for slope, other in zip(slopes, plain, strict=True):
        torch.testing.assert_close(slope, other, atol=1e-3, rtol=1e-4)


def test_attention_is_the_sum_written_point_by_point():
    torch.manual_seed(1)
    layer, features = NeighbourAttention(64, 5), torch.randn(1, 12, 64)
    index = FAST.neighbours(clouds(12, batch=1), clouds(12, batch=1), 5)
    result = layer(features, index)
    seen = features[0].clamp(min=0)
    for point in (0, 7):
        around = index[0, point]
        stacked = torch.cat([layer.centre(seen[point]), layer.around(seen[around]).T.flatten()])  # channel-major
        rows = layer.weights(layer.relation(stacked.clamp(min=0)).clamp(min=0)).view(2, 5)  # 16 // 8 rows of 5 weights
        value = layer.value(seen[around])
        mixed = torch.stack([sum(rows[c % 2, k] * value[k, c] for k in range(5)) for c in range(16)])
        torch.testing.assert_close(result[0, point], features[0, point] + layer.output(mixed.clamp(min=0)))


def test_a_single_kernel_needs_no_gate_and_two_use_it():
    torch.manual_seed(2)
    features, index = torch.randn(1, 30, 64), FAST.neighbours(clouds(30, 1), clouds(30, 1), 16)
    single = SelectiveKernels(64, (16,))
    assert torch.equal(single(features, index), single.branches[0](features, index).clamp(min=0))
    pair = SelectiveKernels(64, (8, 16))
    a, b = (branch(features, index[..., :k]).clamp(min=0) for branch, k in zip(pair.branches, (8, 16), strict=True))
    squeezed = pair.gate((a + b).mean(1))
    first, second = pair.gates[0](squeezed).exp(), pair.gates[1](squeezed).exp()
    expected = (a * first[:, None] + b * second[:, None]) / (first + second)[:, None]
    torch.testing.assert_close(pair(features, index), expected)
    pair(features, index).sum().backward()
    assert pair.gate.weight.grad.abs().max() > 0


def test_a_unit_does_not_mind_the_order_of_points():
    torch.manual_seed(3)
    unit, features, points = LevelUnit(6, 64, (16,)), torch.randn(1, 40, 6), clouds(40, batch=1)
    order = torch.randperm(40)
    plain = unit(features, FAST.neighbours(points, points, 16))
    turned = unit(features[:, order], FAST.neighbours(points[:, order], points[:, order], 16))
    torch.testing.assert_close(turned, plain[:, order])


def double_loop(prediction: np.ndarray, truth: np.ndarray) -> float:
    forth = [min(np.linalg.norm(p - t) for t in truth) for p in prediction]
    back = [min(np.linalg.norm(p - t) for p in prediction) for t in truth]
    return 0.5 * (float(np.mean(forth)) + float(np.mean(back)))


def test_chamfer_is_the_plain_double_loop():
    prediction, truth = clouds(40), clouds(30, seed=5)
    expected = np.mean([double_loop(p, t) for p, t in zip(prediction.numpy(), truth.numpy(), strict=True)])
    assert chamfer(prediction, truth).item() == pytest.approx(expected, rel=1e-12)


def test_the_slope_of_chamfer_is_right_and_finite_where_points_coincide():
    truth = clouds(20, batch=1)
    prediction = (truth[:, :15] + 0.05 * clouds(15, batch=1, seed=9)).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: chamfer(p, truth), prediction)
    same = truth.clone().requires_grad_()
    value = chamfer(same, truth)
    value.backward()
    assert value.item() == 0.0 and torch.equal(same.grad, torch.zeros_like(same))


def test_the_divergence_is_that_of_torch():
    first, second = (Normal(torch.randn(3, 8), torch.rand(3, 8) + 0.1) for _ in range(2))
    a, b = (torch.distributions.Normal(each.mean, each.sd) for each in (first, second))
    torch.testing.assert_close(divergence(first, second), torch.distributions.kl_divergence(a, b).mean())


def test_draws_belong_to_the_sample(sizes):
    both, alone = draw([7, 8], sizes, torch.device("cpu")), draw([8], sizes, torch.device("cpu"))
    assert torch.equal(both.completion[1:], alone.completion)
    assert torch.equal(both.reconstruction[1:], alone.reconstruction)
    assert torch.equal(both.masks[0][[1, 3]], alone.masks[0]) and torch.equal(both.masks[1][[1, 3]], alone.masks[1])
    assert set(alone.masks[0].unique().tolist()) == {0.0, 2.0}  # dropout 0.5 keeps the mean
    assert alone.masks[0].mean().item() == pytest.approx(1.0, abs=0.15)
    none = draw([8], replace(sizes, dropout=0.0), torch.device("cpu"))
    assert (none.masks[0] == 1.0).all()


@pytest.mark.parametrize(("change", "says"), [
    ({"latent": 0}, "latent = 0"), ({"encoder": (1, 2)}, "encoder"), ({"level_points": (8, 16, 4)}, "falling"),
    ({"level_points": (64, 32, 8)}, "16 neighbours"), ({"dropout": 1.0}, "dropout = 1.0"),
    ({"kernels": ()}, "kernels")])
def test_sizes_without_sense_are_refused(change, says):
    with pytest.raises(UsxError, match=says):
        PaperNetworkSettings(**change)
