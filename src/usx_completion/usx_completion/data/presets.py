"""Named settings of a whole simulated examination: ``paper`` as published, ``authors`` as their scripts do besides,
``realistic`` as devices behave."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace

from usx_common.errors import UsxError
from usx_completion.data.crop import CropSettings
from usx_completion.data.normalisation import NormalisationSettings
from usx_completion.data.visibility_paper import PaperVisibility
from usx_completion.data.visibility_realistic import RealisticVisibility
from usx_completion.data.xray_cloud import CloudSizes, PaperXray, RealisticXray
from usx_phantom.posture import PostureSpread


@dataclass(frozen=True)
class DropRules:
    """Which samples are left out. ``oversized``: a side of the normalised truth is 1 or more (the authors' rule; it
    looks at the truth); ``sparse``: fewer partial points than are stored (the authors' rule; else points are
    repeated); always left out: fewer than ``smallest`` points."""

    oversized: bool = False
    sparse: bool = False
    smallest: int = 200


@dataclass(frozen=True)
class Preset:
    """An examination. ``posture``: how the spine bends between ultrasound and X-ray; None: not at all."""

    name: str
    visibility: PaperVisibility | RealisticVisibility
    xray: PaperXray | RealisticXray
    crop: CropSettings = field(default_factory=CropSettings)
    normalisation: NormalisationSettings = field(default_factory=NormalisationSettings)
    posture: PostureSpread | None = None
    drops: DropRules = field(default_factory=DropRules)


PAPER = Preset("paper", PaperVisibility(), PaperXray())
AUTHORS = replace(PAPER, name="authors", visibility=PaperVisibility(mirrored_cameras=True),
                  xray=PaperXray(plane="truth"), drops=DropRules(oversized=True, sparse=True))
REALISTIC = Preset("realistic", RealisticVisibility(), RealisticXray(),
                   CropSettings("placed_mean", (12.0, 6.0, 3.0), (3.0, 3.0, 3.5)),
                   NormalisationSettings(quantile=0.01), PostureSpread())
PRESETS = {preset.name: preset for preset in (PAPER, AUTHORS, REALISTIC)}


def preset_named(name: str, crop: str | None = None) -> Preset:
    """A preset; ``crop`` replaces its crop rule. Raises UsxError for an unknown name or rule."""
    if name not in PRESETS:
        raise UsxError(f"preset {name!r} is unknown; known are {', '.join(PRESETS)}")
    preset = PRESETS[name]
    return preset if crop is None else replace(preset, crop=replace(preset.crop, rule=crop))


@dataclass(frozen=True)
class SampleSettings:
    """A preset with the sizes of what is stored and the rules of what is left out (None: the preset's)."""

    preset: Preset = PAPER
    points: int = 4096
    xray: CloudSizes = field(default_factory=CloudSizes)
    drops: DropRules | None = None

    @property
    def drop_rules(self) -> DropRules:
        """The rules given, else the preset's own."""
        return self.preset.drops if self.drops is None else self.drops

    def text(self) -> str:
        """All numbers as one line of JSON: with the seed and the source, what the data are made from."""
        return json.dumps(asdict(self), sort_keys=True)
