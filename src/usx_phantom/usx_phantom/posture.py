"""Postures of one spine: every vertebra moves as a rigid body, the discs between them bend, and bones do not overlap.

How much of a movement each disc takes follows the ranges of motion of White and Panjabi, Clinical Biomechanics of the
Spine, 2nd edition, 1990 (L1-L2 .. L4-L5: flexion and extension 12, 14, 15, 16 degrees, lateral bending 6, 6, 8, 6,
axial rotation 2, 2, 2, 2). Discs turn about a point in their posterior half near the lower end plate (Pearcy and
Bogduk, Spine 13(9), 1988).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from usx_common.errors import UsxError
from usx_common.levels import LEVELS

DISCS = tuple(f"{upper}-{lower}" for upper, lower in pairwise(LEVELS))
FLEXION_SHARES = np.array([12.0, 14.0, 15.0, 16.0]) / 57.0
BENDING_SHARES = np.array([6.0, 6.0, 8.0, 6.0]) / 26.0
AXIAL_SHARES = np.full(4, 0.25)
# Vertebrae of a scoliotic curve turn towards its convex side, the apex by about this share of the Cobb angle.
ROTATION_PER_COBB = 0.35
LARGEST = {"flexion": 60.0, "bending": 40.0, "rotation": 20.0, "scoliosis": 60.0}
LARGEST_WEDGE = 12.0


class BadPosture(UsxError):
    """A posture that no living spine takes."""


@dataclass(frozen=True)
class PostureChange:
    """A change of posture of L1 to L5, in degrees; 0 changes nothing.

    `flexion`: of L1 against L5, bending forward (less lordosis); negative = extension. `bending`: to the patient's
    left. `rotation`: of L1 against L5 about the long axis, to the left. `scoliosis`: Cobb angle of a curve that is
    convex to the left, with its axial rotation; `double` makes it an S. `wedging`: of the four discs from L1-L2 down,
    (flexion, bending) each, on top of the rest.
    """

    flexion: float = 0.0
    bending: float = 0.0
    rotation: float = 0.0
    scoliosis: float = 0.0
    double: bool = False
    wedging: tuple[tuple[float, float], ...] = ((0.0, 0.0),) * 4

    def __post_init__(self) -> None:
        for name, largest in LARGEST.items():
            value = getattr(self, name)
            if not abs(value) <= largest:
                raise BadPosture(f"posture {name} = {value} degrees: must be -{largest:g} to {largest:g}")
        if np.shape(self.wedging) != (4, 2) or not (np.abs(self.wedging) <= LARGEST_WEDGE).all():
            raise BadPosture(f"posture wedging = {self.wedging}: must be four pairs (flexion, bending) of at most "
                             f"{LARGEST_WEDGE:g} degrees, for {', '.join(DISCS)}")

    def disc_angles(self) -> NDArray[np.float64]:
        """(4, 3) degrees by which the upper vertebra of each disc turns against the lower one.

        Columns: flexion, bending to the left, rotation to the left.
        """
        cobb = self.scoliosis * _curve(self.double)
        wedging = np.asarray(self.wedging, float)
        return np.stack([self.flexion * FLEXION_SHARES + wedging[:, 0],
                         self.bending * BENDING_SHARES + cobb[:, 0] + wedging[:, 1],
                         self.rotation * AXIAL_SHARES + cobb[:, 1]], axis=1)

    def as_dict(self) -> dict[str, Any]:
        """What is not 0, for YAML files; wedging as lists."""
        words: dict[str, Any] = {name: getattr(self, name) for name in (*LARGEST, "double") if getattr(self, name)}
        if np.any(self.wedging):
            words["wedging"] = [[float(angle) for angle in disc] for disc in self.wedging]
        return words


def parse_posture(text: str) -> PostureChange:
    """Posture of words such as ``flexion=10,scoliosis=15,double``; angles in degrees.

    Raises BadPosture naming the word that is unknown, twice there, no number or out of its range.
    """
    values: dict[str, float] = {}
    double = False
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, amount = (part.strip() for part in word.partition("="))
        if word == "double":
            double = True
            continue
        if name not in LARGEST:
            raise BadPosture(f"posture {name!r} is unknown; known are {', '.join(LARGEST)} and double")
        if name in values:
            raise BadPosture(f"posture names {name} twice: keep one")
        try:
            values[name] = float(amount)
        except ValueError:
            raise BadPosture(f"posture {word!r}: write {name}=DEGREES") from None
    flexion, bending, rotation, scoliosis = (values.get(name, 0.0) for name in LARGEST)
    return PostureChange(flexion, bending, rotation, scoliosis, double)


def _curve(double: bool) -> NDArray[np.float64]:
    """(4, 2) bending and rotation at each disc of a curve convex to the left with a Cobb angle of 1 degree.

    The line of bodies is a half (or whole) sine wave, so its slope is a cosine; rotation follows the sine.
    """
    place = np.linspace(0.0, 1.0, len(LEVELS)) * np.pi * (2.0 if double else 1.0)
    # Convex to the left: the upper half leans to the right, so L1 bends to the right against L5.
    lean = np.cos(place) / np.ptp(np.cos(place))
    twist = ROTATION_PER_COBB * np.sin(place)
    return np.stack([np.diff(lean), -np.diff(twist)], axis=1)


def disc_rotations(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, 3, 3) rotations (LPS) of upper against lower vertebrae, of (4, 3) degrees as of `disc_angles`."""
    # LPS: flexion takes the head forward (-y) about +x; bending left takes the head to +x about +y; rotation to the
    # left takes the front (-y) to +x about +z.
    return Rotation.from_euler("xyz", np.asarray(angles, float), degrees=True).as_matrix()


@dataclass(frozen=True)
class PostureSpread:
    """Standard deviations of random postures, degrees; draws stop at 2.5 of them.

    The default is what lying down again after a while may bring; `scaled` makes it larger or smaller.
    """

    flexion: float = 5.0
    bending: float = 2.5
    rotation: float = 1.0
    scoliosis: float = 0.0
    wedging: float = 0.6

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0.0 <= value <= 30.0:
                raise BadPosture(f"posture spread {field.name} = {value} degrees: must be 0 to 30")

    def scaled(self, factor: float) -> PostureSpread:
        """The same with every SD times `factor` >= 0."""
        return PostureSpread(*(factor * getattr(self, field.name) for field in fields(self)))


def random_change(seed: int | np.random.Generator, spread: PostureSpread | None = None) -> PostureChange:
    """A random change of posture; the same seed (or state of the generator) gives the same."""
    spread = spread or PostureSpread()
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(
        np.random.SeedSequence([0x504F5354, int(seed)]))
    z = np.clip(rng.normal(size=12), -2.5, 2.5)
    flexion, bending, rotation, scoliosis = (float(np.clip(z[i] * getattr(spread, name), -largest, largest))
                                             for i, (name, largest) in enumerate(LARGEST.items()))
    wedging = np.clip(spread.wedging * z[4:], -LARGEST_WEDGE, LARGEST_WEDGE).reshape(4, 2)
    return PostureChange(flexion, bending, rotation, scoliosis, bool(rng.random() < 0.3),
                         tuple((float(a), float(b)) for a, b in wedging))
