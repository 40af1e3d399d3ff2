"""The paper's network: its published size, what never learns, and what it must not depend on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from usx_common.errors import UsxError
from usx_completion.paper.draws import draw
from usx_completion.paper.loss import LossSettings, chamfer, divergence, standard_normal, training_loss
from usx_completion.paper.network import (
    PaperNetwork,
    parameter_count,
    parameter_table,
    parameters_without_gradient,
)
from usx_completion.paper.search_naive import NaiveSearch
from usx_completion.paper.settings import VARIANTS, PaperNetworkSettings

# As measured on the authors' program: 27,486,967 in total, 20.37 M without the fusions.
PUBLISHED = {"ultrasound encoder": 821_504, "X-ray encoder": 821_504, "feature selector": 6_294_528,
             "posterior 1": 3_148_800, "posterior 2": 1_574_400, "prior": 1_574_400, "generator": 280_704,
             "coarse head": 8_396_800, "refinement": 4_260_560, "heads, unused ones included": 313_767}
TINY = PaperNetworkSettings(coarse_points=48, output_points=64, encoder=(16, 32, 32), code=32, latent=8,
                            level_points=(40, 24, 16), level_channels=(16, 32, 32, 32), bottleneck=32, features=32,
                            head=16)


def cloud(count: int, batch: int = 1, seed: int = 0, flat: bool = False) -> torch.Tensor:
    points = 0.3 * np.random.default_rng(seed).normal(size=(batch, count, 3)).astype(np.float32)
    return torch.from_numpy(points * np.float32([not flat, 1, 1]))


@pytest.fixture(scope="module")
def published():
    return PaperNetwork().eval()


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(4)
    return PaperNetwork(TINY).eval()


def test_every_block_has_the_published_number_of_parameters(published):
    assert parameter_table(published) == PUBLISHED
    assert parameter_count(published) == sum(PUBLISHED.values()) == 27_486_967


@pytest.mark.parametrize(("variant", "count"), [("baseline", 27_486_967 - 821_504 - 6_294_528),
                                                ("lf", 27_486_967 - 821_504 - 6_294_528), ("ef", 27_486_967)])
def test_switches_take_their_blocks_away(variant, count):
    early, late = VARIANTS[variant]
    settings = PaperNetworkSettings(early_fusion=early, late_fusion=late)
    with torch.device("meta"):
        assert parameter_count(PaperNetwork(settings)) == count
    assert settings.variant == variant


def test_what_is_said_to_never_learn_never_learns():
    # The sizes change nothing in which layers are used.
    network = PaperNetwork(replace(TINY, code=64))
    result = network.training_stages((cloud(40, 2), cloud(30, 2, 1)), cloud(50, 2, 2), draw([0, 1], network.settings,
                                                                                          torch.device("cpu")))
    training_loss(result, cloud(50, 2, 2), 0.5, LossSettings())["total"].backward()
    without = parameters_without_gradient(network)
    dead = {id(parameter) for group in without.values() for parameter in group}
    for name, parameter in network.named_parameters():
        assert (parameter.grad is None) == (id(parameter) in dead), name
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def test_the_parts_that_never_learn_have_the_published_sizes(published):
    without = parameters_without_gradient(published)
    counts = {name: sum(parameter.numel() for parameter in group) for name, group in without.items()}
    assert counts == {"unused": 297_124, "gate": 349_600}


@torch.no_grad()
def test_the_published_sizes_give_the_published_shapes(published):
    partial, filled = cloud(4096), cloud(512, seed=1, flat=True)  # the number of X-ray points is free
    stages = published(partial, filled)
    assert stages.coarse.shape == (1, 2048, 3) and stages.refined.shape == (1, 2048 + 4096 + 512, 3)
    assert stages.output.shape == (1, 4096, 3)
    rows = {tuple(row) for row in stages.refined[0].tolist()}
    assert all(tuple(row) in rows for row in stages.output[0].tolist())


@torch.no_grad()
def test_fast_and_naive_searches_give_the_same_network(tiny):
    naive = PaperNetwork(TINY, NaiveSearch()).eval()
    naive.load_state_dict(tiny.state_dict())
    partial, filled = cloud(60, 3), cloud(50, 3, 1, flat=True)
    fast, slow = tiny(partial, filled), naive(partial, filled)
    torch.testing.assert_close(fast.refined, slow.refined)
    torch.testing.assert_close(fast.output, slow.output)


@torch.no_grad()
def test_the_order_of_points_does_not_matter(tiny):
    partial, filled = cloud(60), cloud(50, seed=1, flat=True)
    one, other = tiny(partial, filled), tiny(partial.flip(1), filled.flip(1))
    torch.testing.assert_close(one.coarse, other.coarse)
    torch.testing.assert_close(_sorted(one.output), _sorted(other.output))


@torch.no_grad()
def test_a_batch_is_its_samples_one_by_one(tiny):
    partial, filled = cloud(60, 3), cloud(50, 3, 1, flat=True)
    together = tiny(partial, filled)
    for n in range(3):
        torch.testing.assert_close(tiny(partial[n:n + 1], filled[n:n + 1]).output[0], together.output[n])


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_xray_goes_only_where_it_is_switched_on(variant):
    early, late = VARIANTS[variant]
    torch.manual_seed(4)
    network = PaperNetwork(replace(TINY, early_fusion=early, late_fusion=late)).eval()
    partial = cloud(60)
    one, other = network(partial, cloud(50, seed=1)), network(partial, cloud(50, seed=2) + 0.5)
    assert torch.equal(one.coarse, other.coarse) == (not early)
    assert torch.equal(one.output, other.output) == (not early and not late)
    if early or late:
        with pytest.raises(UsxError, match=f"variant {variant} needs the X-ray"):
            network(partial, None)
    else:
        assert torch.equal(network(partial, None).output, one.output)


@torch.no_grad()
def test_the_mean_is_the_default_and_noise_is_asked_for(tiny):
    partial, filled = cloud(60), cloud(50, seed=1)
    plain = tiny(partial, filled)
    assert torch.equal(plain.output, tiny(partial, filled, torch.zeros(1, 8)).output)
    noise = torch.randn(1, 8, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(plain.coarse, tiny(partial, filled, noise).coarse)
    assert torch.equal(tiny(partial, filled, noise).output, tiny(partial, filled, noise).output)


@torch.no_grad()
def test_the_start_of_he_keeps_clouds_and_points_apart():
    torch.manual_seed(0)
    clouds = cloud(60, 4) * torch.linspace(0.5, 2.0, 4)[:, None, None], cloud(50, 4, 1)
    stages = {kind: PaperNetwork(replace(TINY, initialisation=kind)).eval()(*clouds) for kind in ("torch", "he")}
    assert stages["he"].coarse.std(dim=0).mean() > 10 * stages["torch"].coarse.std(dim=0).mean()
    assert stages["he"].refined.std(dim=1).mean() > 10 * stages["torch"].refined.std(dim=1).mean()
    assert stages["he"].refined.abs().max() < 10.0


def test_too_few_points_are_refused(tiny):
    with pytest.raises(UsxError, match="5 ultrasound points are too few"):
        tiny(cloud(5), cloud(5))


def test_the_loss_is_the_weighted_sum_of_its_definitions(tiny):
    complete = cloud(50, 2, 2)
    result = tiny.training_stages((cloud(60, 2), cloud(50, 2, 1)), complete, draw([0, 1], TINY, torch.device("cpu")))
    terms = training_loss(result, complete, 0.2, LossSettings())
    truth, stages = torch.cat([complete, complete]), result.stages
    expected = (10 * chamfer(stages.coarse, truth) + 0.5 * chamfer(stages.refined, truth)
                + (1.0 + 0.5) * chamfer(stages.output, truth)
                + 20 * (divergence(standard_normal(result.prior), result.prior)
                        + divergence(result.prior, result.posterior)))
    torch.testing.assert_close(terms["total"], expected)
    # the posterior follows the prior, not the other way round
    prior = tiny.prior.blocks[0].inner.weight
    assert torch.autograd.grad(terms["posterior"], prior, retain_graph=True, allow_unused=True)[0] is None
    assert torch.autograd.grad(terms["prior"], prior)[0].abs().max() > 0


def test_the_second_weight_of_the_final_cloud_grows_as_published():
    settings = LossSettings()
    at = {epoch: settings.final_at(epoch / 100) for epoch in (0, 4, 5, 14, 15, 29, 30, 99)}
    assert at == {0: 0.01, 4: 0.01, 5: 0.1, 14: 0.1, 15: 0.5, 29: 0.5, 30: 1.0, 99: 1.0}
    with pytest.raises(UsxError, match="must begin at share 0"):
        LossSettings(final=((0.1, 1.0),))


@torch.no_grad()
def test_coordinates_keep_their_digits_in_mixed_precision(tiny):
    partial, filled = cloud(60), cloud(50, seed=1)
    exact = tiny(partial, filled)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = tiny(partial, filled)
    assert mixed.coarse.dtype == mixed.refined.dtype == torch.float32
    assert len(mixed.refined[0, :, 0].unique()) > 0.9 * mixed.refined.shape[1]  # bfloat16 has 8 bits
    assert chamfer(mixed.refined, exact.refined) < 0.02


def _sorted(points: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.unique(points[0].numpy(), axis=0))
