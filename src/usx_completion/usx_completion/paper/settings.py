"""Sizes and switches of the paper's network; the defaults are the published ones."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from usx_common.errors import UsxError

VARIANTS = {"baseline": (False, False), "ef": (True, False), "lf": (False, True), "ef_lf": (True, True)}


@dataclass(frozen=True)
class PaperNetworkSettings:
    """Sizes of the network of Wen et al. (US-X Complete, arXiv 2511.15600).

    ``early_fusion``: the X-ray reaches the latent code; ``late_fusion``: its points enter the refinement.
    ``encoder``: channels of the three inner layers of a cloud encoder, ``code``: length of its result; ``latent``:
    length of the latent vector. ``coarse_points`` and ``output_points``: points of the two stages.
    ``level_points`` and ``level_channels`` of the refinement's levels (the first level holds all points);
    ``kernels``: neighbours of each branch of the attention; ``pooled``, ``interpolated``: neighbours of a point on the
    way down and up. ``bottleneck``, ``features``, ``head``: channels; ``dropout`` acts in the bottleneck.
    ``initialisation``: "torch", its defaults as published, or "he", which keeps differences between clouds and between
    points alive through the many layers without normalisation: a short training needs it.
    Raises UsxError naming the setting that makes no sense.
    """

    early_fusion: bool = True
    late_fusion: bool = True
    coarse_points: int = 2048
    output_points: int = 4096
    encoder: tuple[int, ...] = (128, 256, 512)
    code: int = 1024
    latent: int = 128
    level_points: tuple[int, ...] = (1536, 768, 384)
    level_channels: tuple[int, ...] = (64, 128, 256, 512)
    kernels: tuple[int, ...] = (16,)
    pooled: int = 10
    interpolated: int = 3
    bottleneck: int = 1024
    features: int = 256
    head: int = 64
    dropout: float = 0.5
    initialisation: str = "torch"

    def __post_init__(self) -> None:
        for name in ("coarse_points", "output_points", "code", "latent", "pooled", "interpolated", "bottleneck",
                     "features", "head"):
            if not 1 <= getattr(self, name) <= 65536:
                raise self._refusal(name, "1 .. 65536")
        for name, length in (("encoder", 3), ("level_points", len(self.level_channels) - 1)):
            if len(getattr(self, name)) != length:
                raise self._refusal(name, f"{length} numbers")
        for name in ("encoder", "level_points", "level_channels", "kernels"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise self._refusal(name, "numbers of 1 or more")
        if any(after > before for before, after in pairwise(self.level_points)):
            raise self._refusal("level_points", "falling: every level is a subset of the one before")
        if self.widest > min(self.level_points, default=self.widest):
            raise self._refusal("level_points", f"at least the {self.widest} neighbours of a point")
        if self.initialisation not in ("torch", "he"):
            raise self._refusal("initialisation", "torch or he")
        if not 0.0 <= self.dropout < 1.0:
            raise self._refusal("dropout", "within 0 .. 1, 1 excluded")

    @property
    def widest(self) -> int:
        """Most neighbours that any part of the refinement asks for."""
        return max(*self.kernels, self.pooled, self.interpolated)

    @property
    def variant(self) -> str:
        """"baseline" (ultrasound only), "ef", "lf" or "ef_lf"."""
        return next(name for name, switches in VARIANTS.items() if switches == (self.early_fusion, self.late_fusion))

    def _refusal(self, name: str, must_be: str) -> UsxError:
        return UsxError(f"network setting {name} = {getattr(self, name)} must be {must_be}")
