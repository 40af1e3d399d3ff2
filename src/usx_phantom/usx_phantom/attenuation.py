"""Linear attenuation of X-rays in tissue, from Hounsfield units.

Mass attenuation coefficients of liquid water and of cortical bone (ICRU-44, 1.92 g/cm3): NIST, "Tables of X-Ray Mass
Attenuation Coefficients" (Hubbell and Seltzer, NISTIR 5632), between the tabled energies by power laws.
Up to 100 HU tissue attenuates as water of another density; above, the excess is mineral, whose attenuation falls with
energy faster than water's (bilinear scaling: Burger et al., Eur. J. Nucl. Med. 29, 922, 2002).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ENERGIES = (40.0, 50.0, 60.0, 80.0, 100.0, 150.0)  # keV
WATER = (0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505)  # cm2/g
CORTICAL_BONE = (0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480)  # cm2/g
BONE_DENSITY = 1.92  # g/cm3
CT_ENERGY = 75.0  # keV, effective energy of a CT at 120 kV, at which its Hounsfield units hold
SOFT_LIMIT = 100.0  # HU, the densest soft tissue


def water(energy: float) -> float:
    """Linear attenuation of water, 1/mm, at `energy` keV (40 to 150)."""
    return _between(WATER, energy) / 10.0


def cortical_bone(energy: float) -> float:
    """Linear attenuation of cortical bone, 1/mm, at `energy` keV (40 to 150)."""
    return _between(CORTICAL_BONE, energy) * BONE_DENSITY / 10.0


def relative(hounsfield: NDArray, energy: float) -> NDArray[np.float32]:
    """Attenuation at `energy` keV as a multiple of water's, of HU (any shape) that were measured at CT_ENERGY."""
    hounsfield = np.maximum(np.asarray(hounsfield, np.float32), np.float32(-1000.0))
    mineral = np.maximum(hounsfield - np.float32(SOFT_LIMIT), np.float32(0.0))
    return 1.0 + (hounsfield + mineral * np.float32(mineral_factor(energy) - 1.0)) / np.float32(1000.0)


def mineral_factor(energy: float) -> float:
    """How many times further from water bone lies at `energy` keV than on a CT."""
    excess = [cortical_bone(e) / water(e) - 1.0 for e in (energy, CT_ENERGY)]
    return excess[0] / excess[1]


def _between(table: tuple[float, ...], energy: float) -> float:
    return float(np.exp(np.interp(np.log(energy), np.log(ENERGIES), np.log(table))))
