"""The correction network as something to train: a pool of examples, made harder anew every time, and its loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from usx_common.errors import UsxError
from usx_common.meshes import Mesh, vertex_normals
from usx_completion.correction.answer import Answer, answers
from usx_completion.correction.augment import AugmentSettings, augmented
from usx_completion.correction.calibration import Judged, calibrate
from usx_completion.correction.examples import Example
from usx_completion.correction.loss import LossSettings, correction_loss
from usx_completion.correction.network import CorrectionNetwork, NetworkSettings
from usx_completion.correction.polish import Polish
from usx_completion.correction.pool import identity_of, read_pool
from usx_completion.correction.reading import Batch
from usx_completion.correction.scene import observation_of
from usx_completion.correction.start import starting_poses
from usx_completion.correction.weights import card_of
from usx_completion.data.setting_checks import check_settings
from usx_completion.placement import all_poses
from usx_completion.shape_model import PACKAGED_REAL, ShapeModel, load_shape_model
from usx_completion.training.configuration import as_text, build
from usx_completion.training.learner import Step
from usx_completion.training.models import Request

AT_ONCE = 4
STREAM = 0x434F5252


@dataclass(frozen=True)
class DataSettings:
    """Of each pool: ``validated``: spines that validation looks at; ``most``: spines that are read (0: all);
    ``shares``: how often it is drawn from, relative to the others (none: as it is large)."""

    validated: int = 60
    most: int = 0
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_settings(self, {"validated": (1, 10**5), "most": (0, 10**7)})
        if self.shares:
            check_settings(self, {"shares": (1e-3, 1e3)})


@dataclass(frozen=True)
class CorrectionConfiguration:
    """What a configuration says of the model: sections ``network``, ``loss``, ``augment`` and ``data``."""

    network: NetworkSettings = field(default_factory=NetworkSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    data: DataSettings = field(default_factory=DataSettings)


@dataclass(frozen=True)
class TrainingBatch:
    """Scenes, true vertices (B, L, V, 3) mm and the X-ray's displacements (B, L, 2) mm on the device."""

    scenes: Batch
    truth: Tensor
    displaced: Tensor

    @staticmethod
    def of(examples: list[Example], device: torch.device | str) -> TrainingBatch:
        """The examples stacked."""
        truth = torch.from_numpy(np.stack([example.vertices for example in examples])).to(device)
        displaced = torch.from_numpy(np.stack([example.displaced for example in examples])).to(device)
        return TrainingBatch(Batch.of([example.scene for example in examples], device), truth, displaced)


@dataclass(frozen=True)
class Pools:
    """Examples to train on by pool, the probability (pools,) of each to be drawn from, those to validate on, and a
    line on where each pool is from."""

    training: list[list[Example]]
    shares: NDArray[np.float64]
    validation: list[Example]
    origins: tuple[str, ...] = ()

    @staticmethod
    def read(folders: Sequence[Path], settings: DataSettings) -> Pools:
        """Folders with train/ and val/. Raises UsxError for a bad one, where shares do not fit, or where people to
        validate on are trained on in another pool."""
        if settings.shares and len(settings.shares) != len(folders):
            raise UsxError(f"data.shares = {list(settings.shares)} must have a number for each folder of --data, which "
                           f"has {len(folders)}: {', '.join(map(str, folders))}")
        made = [identity_of(folder / "train") for folder in folders]
        for folder in folders:
            kept = identity_of(folder / "val")
            for other, whole in zip(folders, made, strict=True):
                if kept.seed == whole.seed and set(kept.sources) & set(whole.sources):
                    raise UsxError(f"{folder / 'val'} holds people of {other / 'train'}: both were made with seed "
                                   f"{kept.seed}; make one of the pools with another --seed")
        training = [list(read_pool(folder / "train", settings.most)) for folder in folders]
        shares = np.array(settings.shares or [len(pool) for pool in training], np.float64)
        validation = [example for folder in folders for example in read_pool(folder / "val", settings.validated)]
        shares /= shares.sum()
        origins = tuple(f"{len(pool)} of {', '.join(each.presets)}, seed {each.seed}, {each.made_from[:12]}: "
                        f"{share:.3g}" for pool, each, share in zip(training, made, shares, strict=True))
        return Pools(training, shares, validation, origins)

    def draw(self, random: np.random.Generator) -> Example:
        """An example to train on."""
        pool = self.training[int(random.choice(len(self.training), p=self.shares))]
        return pool[int(random.integers(len(pool)))]


class CorrectionLearner:
    """See `usx_completion.training.learner.Learner`. ``size``: spines of a batch over all processes."""

    def __init__(self, configuration: CorrectionConfiguration, pools: Pools, size: int, seed: int,
                 device: torch.device) -> None:
        torch.manual_seed(seed)
        model, metadata = load_shape_model(PACKAGED_REAL)
        self._model = model
        self.module = CorrectionNetwork(model, configuration.network)
        self._pools, self._validation = pools, pools.validation
        self.samples = sum(map(len, pools.training))
        self.card = {**card_of(self.module, metadata["sha256"]), "loss": as_text(configuration.loss),
                     "augment": as_text(configuration.augment), "pools": "; ".join(pools.origins),
                     "examples": str(self.samples), "seed": str(seed), "licence": metadata.get("licence", "")}
        if not len(configuration.loss.stages) == len(configuration.network.stages):
            raise UsxError(f"loss.stages = {configuration.loss.stages} must have a weight for each of the "
                           f"{len(configuration.network.stages)} stages of the network")
        self._settings, self._size, self._seed, self._device = configuration, size, seed, device
        self._polish = Polish(model)

    def loss(self, batch: TrainingBatch, step: Step) -> dict[str, Tensor]:
        """Terms of `loss.correction_loss`."""
        states = self.module(batch.scenes)
        return correction_loss(self.module, batch.scenes, states, batch.truth, batch.displaced, self._settings.loss)

    def batches(self, first: int, rank: int, world: int) -> Iterator[TrainingBatch]:
        """Random examples, each made harder by a draw of its place in the sequence."""
        share, number = self._size // world, first
        while True:
            places = range(number * self._size + rank * share, number * self._size + (rank + 1) * share)
            yield TrainingBatch.of([self._harder(place) for place in places], self._device)
            number += 1

    def validate(self) -> dict[str, float]:
        """Means in mm over spines as they were seen, over the same with the X-ray hidden ("blind") and with nothing but
        the X-ray ("deaf"); and what `calibration.calibrate` finds on all of them."""
        figures: dict[str, list[float]] = {}
        judged: list[Judged] = []
        for start in range(0, len(self._validation), AT_ONCE):
            examples = self._validation[start:start + AT_ONCE]
            kinds = {"": examples, "blind_": [_blind(example) for example in examples],
                     "deaf_": [_deaf(example, self._model) for example in examples]}
            for name, kind in kinds.items():
                found = answers(self.module, self._polish, [example.scene for example in kind], self._device)
                for answer, example in zip(found, kind, strict=True):
                    for told, _, true in self._levels(answer, example):
                        error = told.vertices - true.vertices
                        along = np.einsum("vi,vi->v", error, vertex_normals(true))
                        figures.setdefault(f"{name}normal", []).append(float(np.abs(along).mean()))
                        figures.setdefault(f"{name}place", []).append(float(np.linalg.norm(error, axis=1).mean()))
                    judged += self._judged(answer, example)
        return {**{name: float(np.mean(values)) for name, values in figures.items()},
                **calibrate(judged)}

    def _judged(self, answer: Answer, example: Example) -> Iterator[Judged]:
        """The levels that `CorrectionCompletion` would answer."""
        scene = example.scene
        for placed, (told, sigma, true) in zip(scene.placed, self._levels(answer, example), strict=True):
            level = Judged.of(told, sigma, scene.points, true) if placed else None
            if level is not None:
                yield level

    def _levels(self, answer: Answer, example: Example) -> Iterator[tuple[Mesh, NDArray, Mesh]]:
        """Answer, sigma (V,) and true mesh of every level, mm."""
        for told, sigma, true in zip(answer.vertices, answer.sigma, example.vertices.astype(np.float64), strict=True):
            yield Mesh(told, self._model.faces), sigma, Mesh(true, self._model.faces)

    def _harder(self, place: int) -> Example:
        random = np.random.default_rng(np.random.SeedSequence([STREAM, self._seed, place]))
        return augmented(self._pools.draw(random), self._settings.augment, random, self._model)


def _blind(example: Example) -> Example:
    scene = example.scene
    return replace(example, scene=replace(scene, poses=example.blind_poses, shown=np.zeros_like(scene.shown)))


def _deaf(example: Example, model: ShapeModel) -> Example:
    """Without ultrasound; all outlines are shown, as in every example of a pool."""
    scene = replace(example.scene, points=example.scene.points[:0], labels=example.scene.labels[:0])
    poses = all_poses(model, starting_poses(model, observation_of(scene)).poses)
    return replace(example, scene=replace(scene, poses=poses, placed=np.ones_like(scene.placed)))


def make_learner(request: Request) -> CorrectionLearner:
    """The learner of a configuration's sections; ``data``: folders of `make_pool` with train/ and val/.

    Raises UsxError for a bad setting or folder, or a variant, which this model has not.
    """
    if request.variant:
        raise UsxError(f"--variant {request.variant} is for the paper's network; this model has none")
    values = {key: value for key, value in request.sections.items() if key not in ("model", "training")}
    settings = build(CorrectionConfiguration, values, "configuration")
    return CorrectionLearner(settings, Pools.read(request.data, settings.data), request.size, request.seed,
                             request.device)
