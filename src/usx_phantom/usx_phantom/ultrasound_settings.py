"""Numbers of the ultrasound model, with the reason for each default."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from usx_phantom.checks import BadSettings, check_range


@dataclass(frozen=True)
class BeamSettings:
    """Sampling and point spread. A 5C1 works near 3.5 MHz; widths are one standard deviation of a Gaussian, mm."""

    lines: int = 256
    samples: int = 641
    axial_width: float = 0.36  # about 1.5 cycles of 0.44 mm
    lateral_width: float = 0.75  # at the focus
    focus_depth: float = 70.0
    lateral_divergence: float = 0.011  # growth of the lateral width per mm away from the focus
    elevation_offsets: tuple[float, ...] = (-2.4, -1.2, 0.0, 1.2, 2.4)  # mm; bone is cast once for each
    elevation_weights: tuple[float, ...] = (0.1, 0.23, 0.34, 0.23, 0.1)


@dataclass(frozen=True)
class BoneSettings:
    """Echo of bone: `specular` (cos a)^`exponent` + `diffuse` cos a, a = incidence angle; amplitude relative to
    muscle's speckle. Behind bone `transmission` of the amplitude is left, and a haze of multiple echoes that starts
    at `haze` times the bone's echo and fades over `haze_length` mm."""

    specular: float = 110.0
    exponent: float = 4.0
    diffuse: float = 8.0
    roughness: float = 0.45  # share of the echo whose phase is random along the surface
    transmission: float = 0.01
    haze: float = 0.005
    haze_length: float = 14.0


@dataclass(frozen=True)
class TissueSettings:
    """Soft tissue under the probe: layers by depth below the skin, mm; amplitudes relative to muscle.

    `attenuation` is what the depth gain leaves over, dB/mm; `noise` the electronic noise's amplitude at the face,
    which the depth gain lifts by `noise_rise` dB/mm."""

    skin_thickness: float = 1.8
    fat_thickness: float = 9.0
    skin: float = 1.8
    fat: float = 0.45
    muscle: float = 1.0
    texture: float = 0.5  # log-normal contrast of the fibre and lobule pattern; 0 = uniform speckle
    interfaces: float = 16.0  # echo of the fascia; 0 = none
    attenuation: float = 0.16
    noise: float = 0.006
    noise_rise: float = 0.13
    gel: float = 4.0  # a gap up to this is filled with gel, mm; beyond it the line has no contact


@dataclass(frozen=True)
class UltrasoundSettings:
    """Everything that the simulator can be told. `gain_db` shifts the brightness: amplitude 1 (muscle at the face)
    is shown `headroom_db` below white; `dynamic_range_db` lies between black and white."""

    beam: BeamSettings = field(default_factory=BeamSettings)
    bone: BoneSettings = field(default_factory=BoneSettings)
    tissue: TissueSettings = field(default_factory=TissueSettings)
    dynamic_range_db: float = 62.0
    headroom_db: float = 32.0
    gain_db: float = 0.0

    def __post_init__(self) -> None:
        for part in (self.beam, self.bone, self.tissue):
            _finite_and_not_negative(part)
        check_range("ultrasound lines", self.beam.lines, 16, 2048)
        check_range("ultrasound samples", self.beam.samples, 32, 16384)
        check_range("ultrasound axial_width", self.beam.axial_width, 0.05, 5.0)
        check_range("ultrasound lateral_width", self.beam.lateral_width, 0.05, 20.0)
        check_range("ultrasound dynamic_range_db", self.dynamic_range_db, 10.0, 140.0)
        check_range("ultrasound headroom_db", self.headroom_db, -60.0, 140.0)
        check_range("ultrasound gain_db", self.gain_db, -80.0, 80.0)
        offsets, weights = self.beam.elevation_offsets, self.beam.elevation_weights
        if not offsets or len(offsets) != len(weights) or abs(sum(weights) - 1.0) > 1e-6:
            raise BadSettings(f"{len(offsets)} elevation offsets with weights {weights}: one weight each, sum 1")


def _finite_and_not_negative(part: BeamSettings | BoneSettings | TissueSettings) -> None:
    for entry in fields(part):
        value = getattr(part, entry.name)
        numbers = np.atleast_1d(np.asarray(value, dtype=float))
        if not np.isfinite(numbers).all() or (entry.name != "elevation_offsets" and (numbers < 0).any()):
            raise BadSettings(f"{entry.name} = {value}: must be finite and not negative")
