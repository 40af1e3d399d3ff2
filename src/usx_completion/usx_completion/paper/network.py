"""The two-stage network of US-X Complete with its two fusions, each of which can be switched off.

Wen et al., "US-X Complete" (arXiv 2511.15600), rebuilt from a description of the layers; the ultrasound-only network
with both fusions off is that of Gafencu et al. on which theirs rests, and goes back to VRCNet (Pan et al., CVPR 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from usx_common.errors import UsxError
from usx_completion.paper.attention import SelectiveKernels
from usx_completion.paper.draws import Draws
from usx_completion.paper.encoder import CloudEncoder
from usx_completion.paper.latent import FeatureSelector, InferenceNet, Normal
from usx_completion.paper.layers import ResidualLinear, in_full_precision, initialise
from usx_completion.paper.refinement import PointHead, Refinement, UnusedHeads, joined_points, levels_of
from usx_completion.paper.search import FAST, Search, take
from usx_completion.paper.settings import PaperNetworkSettings

# The untrained coarse cloud lies within the vertebra rather than around it, and the latent noise does not drown what
# the ultrasound says.
FIRST_SPREAD = 0.1


@dataclass(frozen=True)
class Stages:
    """Clouds of both stages: ``coarse`` (B, c, 3), ``refined`` (B, N, 3) of all points, and the ``output`` (B, o, 3),
    which are the furthest points ``chosen`` (B, o) of the refined ones."""

    coarse: Tensor
    refined: Tensor
    chosen: Tensor
    output: Tensor


@dataclass(frozen=True)
class TrainingStages:
    """What the loss needs: clouds of 2B samples, completions before reconstructions, and both distributions."""

    stages: Stages
    posterior: Normal
    prior: Normal


class PaperNetwork(nn.Module):
    """The network; ``search`` finds neighbours and furthest points. Coordinates are normalised, features are
    float32 or what autocast makes them."""

    def __init__(self, settings: PaperNetworkSettings | None = None, search: Search = FAST) -> None:
        super().__init__()
        self.settings = settings = settings or PaperNetworkSettings()
        self.search = search
        code = settings.code
        self.ultrasound_encoder = CloudEncoder(settings)
        if settings.early_fusion:
            self.xray_encoder = CloudEncoder(settings)
            self.feature_selector = FeatureSelector(code)
        self.posterior = InferenceNet(settings, blocks=2)
        self.prior = InferenceNet(settings, blocks=1)
        self.generator = ResidualLinear(settings.latent, code)
        self.coarse_head = nn.Sequential(nn.Linear(code, code), nn.ReLU(), nn.Linear(code, code), nn.ReLU(),
                                         nn.Linear(code, 3 * settings.coarse_points))
        self.refinement = Refinement(settings)
        self.point_head = PointHead(settings)
        self.unused = UnusedHeads(settings)
        if settings.initialisation == "he":
            self._initialise()

    def forward(self, partial: Tensor, filled: Tensor | None, noise: Tensor | None = None) -> Stages:
        """Complete clouds ``partial`` (B, P, 3) with the X-ray's ``filled`` bodies (B, Nx, 3), None without fusion.

        The latent code is its mean, or with ``noise`` (B, latent), standard normal, a draw. Raises UsxError where the
        X-ray is missing or points are too few.
        """
        self._check(partial, filled)
        seen = self.ultrasound_encoder(partial)
        posterior = self.posterior(self._fused(seen, filled))
        code = posterior.mean if noise is None else posterior.at(noise)
        return self._decode(seen, code, (partial, filled), None)

    def training_stages(self, clouds: tuple[Tensor, Tensor | None], complete: Tensor, draws: Draws) -> TrainingStages:
        """Both paths of training for ``clouds`` (partial, filled) and their ``complete`` (B, M, 3): completion with a
        code drawn from the posterior, reconstruction with one from the prior, which knows the complete cloud. Both
        add the code to the vector of the *partial* cloud."""
        partial, filled = clouds
        self._check(partial, filled)
        seen = self.ultrasound_encoder(partial)
        posterior = self.posterior(self._fused(seen, filled))
        prior = self.prior(self.ultrasound_encoder(complete))
        codes = torch.cat([posterior.at(draws.completion), prior.at(draws.reconstruction)])
        twice = (_twice(partial), None if filled is None else _twice(filled))
        stages = self._decode(_twice(seen), codes, twice, draws.masks)
        return TrainingStages(stages, posterior, prior)

    def _initialise(self) -> None:
        """All on the straight ways from input to output; not attention, whose products would explode."""
        for part in (self.ultrasound_encoder, self.coarse_head, self.point_head, *self.refinement.straight()):
            initialise(part)
        if self.settings.early_fusion:
            initialise(self.xray_encoder)
            initialise(self.feature_selector)
        with torch.no_grad():
            list(self.coarse_head.parameters())[-2].mul_(FIRST_SPREAD)  # the last layer's weight
            for parameter in (*self.generator.outer.parameters(), *self.generator.shortcut.parameters()):
                parameter.mul_(FIRST_SPREAD)

    def _fused(self, seen: Tensor, filled: Tensor | None) -> Tensor:
        if not self.settings.early_fusion:
            return seen
        return self.feature_selector(seen, self.xray_encoder(filled))

    def _decode(self, seen: Tensor, code: Tensor, clouds: tuple[Tensor, Tensor | None],
                masks: tuple[Tensor, Tensor] | None) -> Stages:
        flat = in_full_precision(self.coarse_head, seen.float() + in_full_precision(self.generator, code))
        coarse = flat.unflatten(1, (3, -1)).transpose(1, 2)
        partial, filled = clouds
        parts = [coarse, partial]
        if self.settings.late_fusion and filled is not None:
            parts.append(filled)
        joined = joined_points(parts)
        levels = levels_of(joined, self.settings, self.search)
        refined = self.point_head(self.refinement(joined, levels, masks))
        chosen = self.search.farthest(refined, self.settings.output_points)
        return Stages(coarse, refined, chosen, take(refined, chosen))

    def _check(self, partial: Tensor, filled: Tensor | None) -> None:
        settings = self.settings
        if (settings.early_fusion or settings.late_fusion) and filled is None:
            raise UsxError(f"a network of variant {settings.variant} needs the X-ray's cloud")
        beside = filled.shape[1] if settings.late_fusion and filled is not None else 0
        count = settings.coarse_points + partial.shape[1] + beside
        needed = max(settings.output_points, *settings.level_points)
        if count < needed:
            raise UsxError(f"{partial.shape[1]} ultrasound points are too few: with {settings.coarse_points} coarse "
                           f"and {beside} X-ray points they must be {needed} or more")


def parameter_count(module: nn.Module) -> int:
    """Number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def parameter_table(network: PaperNetwork) -> dict[str, int]:
    """Parameters of every block, in the order of the published table; blocks that are switched off are left out."""
    blocks: dict[str, list[nn.Module]] = {
        "ultrasound encoder": [network.ultrasound_encoder]}
    if network.settings.early_fusion:
        blocks |= {"X-ray encoder": [network.xray_encoder], "feature selector": [network.feature_selector]}
    blocks |= {"posterior 1": [network.posterior.blocks[0]], "posterior 2": [network.posterior.blocks[1]],
               "prior": [network.prior], "generator": [network.generator], "coarse head": [network.coarse_head],
               "refinement": [network.refinement], "heads, unused ones included": [network.point_head, network.unused]}
    return {name: sum(parameter_count(module) for module in modules) for name, modules in blocks.items()}


def parameters_without_gradient(network: PaperNetwork) -> dict[str, list[nn.Parameter]]:
    """The published parameters that never learn: "unused" layers, and "gate" layers where there is one kernel."""
    dead: dict[str, list[nn.Parameter]] = {"unused": list(network.unused.parameters()), "gate": []}
    if len(network.settings.kernels) == 1:
        selective = [module for module in network.refinement.modules() if isinstance(module, SelectiveKernels)]
        dead["gate"] = [parameter for module in selective for parameter in module.gate_parameters()]
    return dead


def _twice(values: Tensor) -> Tensor:
    return torch.cat([values, values])
