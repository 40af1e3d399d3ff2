"""Numbers of the ultrasound model, with the reason for each default."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from usx_phantom.checks import BadSettings, check_range


@dataclass(frozen=True)
class BeamSettings:
    """Sampling and point spread. A 5C1 works near 3.5 MHz; widths are one standard deviation of a Gaussian, mm.
    The beam is narrowest at the transmit focus, where `focus_gain` dB more pressure arrives."""

    lines: int = 256
    samples: int = 641
    axial_width: float = 0.28  # about 1.5 cycles of 0.44 mm, there and back
    lateral_width: float = 0.65  # at the focus: wavelength x 70 mm / 20 mm of aperture, full width at half maximum
    focus_depth: float = 70.0
    focus_gain: float = 2.0
    lateral_divergence: float = 0.011  # growth of the lateral width per mm away from the focus
    frequency: float = 3.5  # MHz
    elevation_offsets: tuple[float, ...] = (-1.8, -0.9, 0.0, 0.9, 1.8)  # mm; bone is cast once for each
    elevation_weights: tuple[float, ...] = (0.1, 0.23, 0.34, 0.23, 0.1)  # wavelength x 70 mm / 13 mm of height


@dataclass(frozen=True)
class BoneSettings:
    """Echo of bone: `specular` (cos a)^`exponent` + `diffuse` cos a, a = incidence angle; amplitude relative to
    muscle's speckle. Behind bone nothing of the tissue is left, but a short `tail` and a long `haze` of multiple
    echoes (shares of the bone's echo, fading over their lengths in mm), and `reverberation`: the share of amplitude
    that comes back once more after a reflection at the face."""

    specular: float = 340.0
    exponent: float = 4.0
    diffuse: float = 20.0
    gas: float = 90.0
    roughness: float = 0.45  # share of the echo whose phase is random along the surface
    tail: float = 0.1
    tail_length: float = 0.7
    haze: float = 0.003
    haze_length: float = 14.0
    reverberation: float = 0.012


@dataclass(frozen=True)
class TissueSettings:
    """Soft tissue under the probe: layers by depth below the skin, mm; amplitudes relative to muscle; attenuation in
    dB / (cm MHz), one way (Szabo, "Diagnostic ultrasound imaging", 2nd ed., appendix B)."""

    skin_thickness: float = 1.8
    fat_thickness: float = 9.0
    skin: float = 1.8
    fat: float = 0.6
    muscle: float = 1.0
    texture: float = 0.5  # log-normal contrast of the fibre and lobule pattern; 0 = uniform speckle
    interfaces: float = 24.0  # echo of the fascia; 0 = none
    fat_attenuation: float = 0.48
    attenuation: float = 0.57
    gel: float = 4.0  # a gap up to this is filled with gel, mm; beyond it the line has no contact


@dataclass(frozen=True)
class ReceiverSettings:
    """Depth gain (TGC): `gain_slope` dB/mm plus `sliders`, dB at equally spaced depths from the face to the end.
    `noise` is the electronic noise's amplitude before that gain, `ring` the face's ring-down. `gain_db` shifts the
    brightness: amplitude 1 (muscle at the face) is shown `headroom_db` below white; `dynamic_range_db` lies between
    black and white."""

    gain_slope: float = 0.33
    sliders: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    noise: float = 1.2e-3
    ring: float = 120.0
    dynamic_range_db: float = 62.0
    headroom_db: float = 50.0
    gain_db: float = 0.0


@dataclass(frozen=True)
class UltrasoundSettings:
    """Everything that the simulator can be told. Raises BadSettings for numbers that make no sense."""

    beam: BeamSettings = field(default_factory=BeamSettings)
    bone: BoneSettings = field(default_factory=BoneSettings)
    tissue: TissueSettings = field(default_factory=TissueSettings)
    receiver: ReceiverSettings = field(default_factory=ReceiverSettings)

    def __post_init__(self) -> None:
        for part in (self.beam, self.bone, self.tissue, self.receiver):
            _finite_and_not_negative(part)
        check_range("ultrasound lines", self.beam.lines, 16, 2048)
        check_range("ultrasound samples", self.beam.samples, 32, 16384)
        check_range("ultrasound axial_width", self.beam.axial_width, 0.05, 5.0)
        check_range("ultrasound lateral_width", self.beam.lateral_width, 0.05, 20.0)
        check_range("ultrasound frequency", self.beam.frequency, 0.5, 30.0, "MHz")
        check_range("ultrasound tail_length", self.bone.tail_length, 1e-3, 100.0, "mm")
        check_range("ultrasound haze_length", self.bone.haze_length, 1e-3, 1000.0, "mm")
        check_range("ultrasound reverberation", self.bone.reverberation, 0.0, 1.0)
        check_range("ultrasound gain_slope", self.receiver.gain_slope, 0.0, 3.0, "dB/mm")
        check_range("ultrasound dynamic_range_db", self.receiver.dynamic_range_db, 10.0, 140.0)
        check_range("ultrasound headroom_db", self.receiver.headroom_db, -60.0, 140.0)
        check_range("ultrasound gain_db", self.receiver.gain_db, -80.0, 80.0)
        if len(self.receiver.sliders) < 2:
            raise BadSettings(f"sliders = {self.receiver.sliders}: at least 2 are needed")
        offsets, weights = self.beam.elevation_offsets, self.beam.elevation_weights
        if not offsets or len(offsets) != len(weights) or abs(sum(weights) - 1.0) > 1e-6:
            raise BadSettings(f"{len(offsets)} elevation offsets with weights {weights}: one weight each, sum 1")


SIGNED = ("elevation_offsets", "sliders", "headroom_db", "gain_db")


def _finite_and_not_negative(part: BeamSettings | BoneSettings | TissueSettings | ReceiverSettings) -> None:
    for entry in fields(part):
        value = getattr(part, entry.name)
        numbers = np.atleast_1d(np.asarray(value, dtype=float))
        if not np.isfinite(numbers).all() or (entry.name not in SIGNED and (numbers < 0).any()):
            raise BadSettings(f"{entry.name} = {value}: must be finite and not negative")
