"""Set-up of the simulated X-ray device."""

from __future__ import annotations

from dataclasses import dataclass, field

from usx_phantom.checks import BadSettings, check_range
from usx_phantom.density import Material

MOST_PIXELS = 20_000_000


@dataclass(frozen=True)
class XraySettings:
    """Set-up of the device. Lengths in mm, angles in degrees.

    `detector_side` is the side of the patient that the detector is on ("left": a left lateral view).
    `primary_angle` and `secondary_angle` turn the view away from the true lateral, about the patient's long axis and
    about the sagittal axis. `energy` (keV) is that of all photons; `photons` reach an open pixel. `scatter` is the
    ratio of scattered to primary photons where the body is thick, behind the grid; `scatter_width` (one sd) is how far
    they spread at the detector. `detector_mtf` is the scintillator's modulation transfer at 1 line pair/mm (1: none
    lost), `focal_spot` the focal spot's width. `collimator` is the open (width, height) at the detector, None: all of
    it. `mottle` is the relative unevenness of soft tissue, `gas` the number of gas pockets. `intent` "PRESENTATION":
    processed grey values, bone bright for MONOCHROME2; "PROCESSING": raw detector counts, bone dark.
    Raises BadSettings naming what makes no sense.
    """

    source_to_detector: float = 1100.0
    source_to_isocentre: float = 750.0
    columns: int = 1024
    rows: int = 1280
    spacing: float = 0.3
    detector_side: str = "left"
    primary_angle: float = 0.0
    secondary_angle: float = 0.0
    photons: float = 7.0e5
    energy: float = 60.0
    scatter: float = 0.8
    scatter_width: float = 25.0
    detector_mtf: float = 0.6
    focal_spot: float = 0.6
    collimator: tuple[float, float] | None = None
    bits_stored: int = 14
    photometric: str = "MONOCHROME2"
    intent: str = "PRESENTATION"
    gas: int = 7
    mottle: float = 0.012
    material: Material = field(default_factory=Material)

    def __post_init__(self) -> None:
        check_range("X-ray source_to_detector", self.source_to_detector, 200.0, 5000.0)
        check_range("X-ray source_to_isocentre", self.source_to_isocentre, 100.0, self.source_to_detector - 1.0)
        check_range("X-ray columns", self.columns, 16, 8192)
        check_range("X-ray rows", self.rows, 16, 8192)
        if self.columns * self.rows > MOST_PIXELS:
            raise BadSettings(f"X-ray columns x rows = {self.columns} x {self.rows}: more than {MOST_PIXELS} pixels, "
                              "which need 2 GiB of memory")
        check_range("X-ray spacing", self.spacing, 0.02, 5.0)
        check_range("X-ray primary_angle", self.primary_angle, -45.0, 45.0)
        check_range("X-ray secondary_angle", self.secondary_angle, -45.0, 45.0)
        check_range("X-ray photons", self.photons, 10.0, 1e12)
        check_range("X-ray scatter", self.scatter, 0.0, 20.0)
        check_range("X-ray energy", self.energy, 40.0, 150.0, "keV")
        check_range("X-ray scatter_width", self.scatter_width, 0.1, 500.0, "mm")
        check_range("X-ray detector_mtf", self.detector_mtf, 0.05, 1.0)
        check_range("X-ray focal_spot", self.focal_spot, 0.0, 5.0, "mm")
        if self.collimator is not None and len(self.collimator) != 2:
            raise BadSettings(f"X-ray collimator = {self.collimator}: must be its width and height, mm")
        for length in self.collimator or ():
            check_range("X-ray collimator", length, 5.0, 5000.0, "mm")
        check_range("X-ray bits_stored", self.bits_stored, 8, 16)
        check_range("X-ray mottle", self.mottle, 0.0, 0.2)
        check_range("X-ray gas", self.gas, 0, 100)
        for name, value, known in (("detector_side", self.detector_side, ("left", "right")),
                                   ("photometric", self.photometric, ("MONOCHROME1", "MONOCHROME2")),
                                   ("intent", self.intent, ("PRESENTATION", "PROCESSING"))):
            if value not in known:
                raise BadSettings(f"X-ray {name} = {value!r}: must be {known[0]!r} or {known[1]!r}")
        if self.intent == "PROCESSING" and self.photometric == "MONOCHROME1":
            raise BadSettings("X-ray photometric = 'MONOCHROME1': raw counts (intent PROCESSING) are MONOCHROME2")
