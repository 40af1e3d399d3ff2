"""The paper's network as something to train: its data, its loss, its validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from usx_common.errors import UsxError
from usx_completion.metrics import chamfer_t, f1_score, part_masks
from usx_completion.paper.clouds import Clouds, CloudSettings, clouds_of, training_and_validation
from usx_completion.paper.completion import FORMAT
from usx_completion.paper.draws import draw
from usx_completion.paper.loss import LossSettings, training_loss
from usx_completion.paper.mean_cloud import mean_clouds
from usx_completion.paper.network import PaperNetwork, parameter_count
from usx_completion.paper.settings import VARIANTS, PaperNetworkSettings
from usx_completion.training.configuration import as_text, build
from usx_completion.training.learner import Step
from usx_completion.training.models import Request

VALIDATED_AT_ONCE = 4


@dataclass(frozen=True)
class PaperConfiguration:
    """What a configuration says of the model: the sections ``network``, ``loss`` and ``data``."""

    network: PaperNetworkSettings = field(default_factory=PaperNetworkSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    data: CloudSettings = field(default_factory=CloudSettings)


@dataclass(frozen=True)
class Batch:
    """A part of a batch: clouds on the device, and the seed of each sample's draws."""

    partial: Tensor
    filled: Tensor
    complete: Tensor
    seeds: list[int]


class PaperLearner:
    """See `usx_completion.training.learner.Learner`. ``size``: samples of a batch over all processes."""

    def __init__(self, configuration: PaperConfiguration, training: Clouds, validation: Clouds, size: int, seed: int,
                 device: torch.device) -> None:
        torch.manual_seed(seed)
        self.module = PaperNetwork(configuration.network)
        self.samples = len(training)
        self.card = {"format": FORMAT, "variant": configuration.network.variant, **training.notes,
                     "network": as_text(configuration.network), "loss": as_text(configuration.loss),
                     "clouds": as_text(configuration.data), "seed": str(seed)}
        self._settings, self._training, self.validation = configuration, training, validation
        self._size, self._seed, self._device = size, seed, device

    def loss(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Terms of the published loss."""
        network = self.module
        draws = draw(batch.seeds, network.settings, self._device)
        result = network.training_stages((batch.partial, batch.filled), batch.complete, draws)
        return training_loss(result, batch.complete, step.share, self._settings.loss, network.search)

    def batches(self, first: int, rank: int, world: int) -> Iterator[Batch]:
        """Every epoch in an order of its own, epochs one after the other without a break."""
        share = self._size // world
        number = first
        while True:
            start = number * self._size + rank * share
            places = range(start, start + share)
            rows = [self._row(place) for place in places]
            partial, filled, complete = (cloud[rows].to(self._device) for cloud in (
                self._training.partial, self._training.filled, self._training.complete))
            yield Batch(partial, filled, complete, [self._seed * 2**32 + place for place in places])
            number += 1

    def validate(self) -> dict[str, float]:
        """CD-T x1e4 of whole, arch and body, and F1, of the output cloud against the complete one; means."""
        validation, outputs = self.validation, []
        for start in range(0, len(validation), VALIDATED_AT_ONCE):
            part = slice(start, start + VALIDATED_AT_ONCE)
            stages = self.module(validation.partial[part].to(self._device), validation.filled[part].to(self._device))
            outputs += list(stages.output.float().cpu().numpy())
        return mean_scores(validation.complete.numpy(), outputs)

    def scores_of_means(self, means: Mapping[int, NDArray]) -> dict[str, float]:
        """The figures of `validate` for one cloud (n, 3) a level, at the labels that have one."""
        validation = self.validation
        rows = [row for row, label in enumerate(validation.labels) if int(label) in means]
        return mean_scores(validation.complete[rows].numpy(), [means[int(validation.labels[row])] for row in rows])

    def _row(self, place: int) -> int:
        """Row of the sample at a place of the endless sequence of epochs."""
        epoch, within = divmod(place, self.samples)
        if getattr(self, "_epoch", None) != epoch:
            random = np.random.default_rng(np.random.SeedSequence([0x45504F43, self._seed, epoch]))
            self._epoch, self._order = epoch, random.permutation(self.samples)
        return int(self._order[within])


def mean_scores(truths: NDArray, predictions: list[NDArray]) -> dict[str, float]:
    """Mean figures of predicted clouds (n, 3) against the true ones (N, M, 3), both normalised."""
    rows = []
    for truth, prediction in zip(truths, predictions, strict=True):
        row = {"cd_t_e4": 1e4 * chamfer_t(truth, prediction), "f1": f1_score(truth, prediction)}
        mine, theirs = part_masks(truth, truth), part_masks(truth, prediction)
        for part in ("arch", "body"):
            if theirs[part].any():  # an untrained network may leave a part without points
                row[f"{part}_cd_t_e4"] = 1e4 * chamfer_t(truth[mine[part]], prediction[theirs[part]])
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def make_learner(request: Request) -> PaperLearner:
    """The learner of a configuration's sections. Raises UsxError for a bad setting, variant or file."""
    values = {key: value for key, value in request.sections.items() if key not in ("model", "training")}
    settings = build(PaperConfiguration, values, "configuration")
    if request.variant:
        settings = replace(settings, network=variant_of(settings.network, request.variant))
    if len(request.data) != 1:
        raise UsxError(f"the paper's network learns from one data set; --data has {len(request.data)}: "
                       + ", ".join(map(str, request.data)))
    training, validation = training_and_validation(request.data[0], request.validation)
    kept = settings.data.validated
    learner = PaperLearner(settings, clouds_of(training, settings.data),
                           clouds_of(validation, replace(settings.data, complete_points=65536), kept),
                           request.size, request.seed, request.device)
    if request.report is not None:
        request.report(f"{settings.network.variant}: {parameter_count(learner.module):,} parameters, {len(training)} "
                       f"samples to train on, {len(learner.validation)} to validate on")
        scores = learner.scores_of_means(mean_clouds(training, settings.network.output_points))
        request.report("mean cloud of each level: " + ", ".join(f"{key} {value:.4g}" for key, value in scores.items()))
    return learner


def variant_of(settings: PaperNetworkSettings, variant: str) -> PaperNetworkSettings:
    """The settings with the switches of a variant. Raises UsxError for an unknown one."""
    if variant not in VARIANTS:
        raise UsxError(f"variant {variant!r} is unknown; known are {', '.join(VARIANTS)}")
    early, late = VARIANTS[variant]
    return PaperNetworkSettings(**{**asdict(settings), "early_fusion": early, "late_fusion": late})
