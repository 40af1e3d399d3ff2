"""Random vertebrae: the mean of a level changed by size, proportions, pose of its processes, and asymmetry.

Spreads are standard deviations. Where morphometry is published it is followed (sources beside the numbers); the
angles and radii of processes, for which nothing is published, were set so that the distance of a sample from the mean
matches what real people show (1.0-1.5 mm mean surface distance after a similarity fit).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from usx_phantom.vertebra import PAIRED_PARTS, PARTS, VertebraShape, mean_vertebra

_INDEX = {name: i for i, name in enumerate(PARTS)}
_TRANSVERSE = [_INDEX[n] for n in ("transverse_root", "transverse_tip")]
_SUPERIOR = [_INDEX[n] for n in ("superior_root", "superior_tip", "mammillary")]
_INFERIOR = [_INDEX[n] for n in ("inferior_root", "inferior_tip")]
_SPINOUS = [_INDEX[n] for n in ("spinous_root", "spinous_middle", "spinous_tip")]
_PEDICLE = _INDEX["pedicle"]

# Half axes (height, thickness) of the tip of a person's transverse process as parts of those of the mean.
_TIP = (0.60, 0.90)
# Least distance of laminae and inferior processes from the mid-plane as a part of the mean's; least half thickness of
# the spinous process and least half height where it begins (mm).
_NARROWEST, _THINNEST, _LOWEST = 0.93, 2.5, 8.0
# Between levels of one person (neighbours of one spine are alike).
LEVEL_CORRELATION = 0.7
# Men against women: end-plate width 43.9 against 38.0 mm at L1 (CTSpinoPelvic1K, n 315/339), heights 30.3/29.2.
SEX_WIDTH, SEX_HEIGHT = 0.065, 0.025

# name -> relative or absolute standard deviation of one person's value about the mean of the sex.
SPREADS = {
    "width": 0.060,  # end-plate width SD 2.45-3.5 mm of 38-47 (CTSpinoPelvic1K, robust SD)
    "depth": 0.040,  # end-plate depth SD 3.5 of 35.7 (Cook & Baker 2021, L5), of which size is a part
    "height": 0.046,  # body height SD 1.8-2.2 of 27-30 (Gilad 1985; CTSpinoPelvic1K)
    "canal_width": 0.080,  # SD 2.2 of 25 (CTSpinoPelvic1K, robust SD)
    "canal_depth": 0.140,  # SD 2.0-2.9 of 14-16 (Griffith 2016, Yadav 2020)
    "pedicle_width": 0.150,  # SD 1.7-2.0 of 8-10 (Zindrick 1987), 2.3 of 16.1 (Cook & Baker 2021, L5)
    "pedicle_height": 0.100,  # SD 1.9 of 12.9 (Cook & Baker 2021, L5), of which size is a part
    "transverse_length": 0.120,  # span SD 8.2-9.2 of 73-93 (CTSpinoPelvic1K), of which size is a part
    "posterior": 0.050,
    "superior_length": 0.110,
    "inferior_length": 0.110,
    "spinous_length": 0.060,  # SD 3.6 of 52 with the canal (Clouthier 2023), of which size is a part
    "spinous_height": 0.090,
    "spinous_thickness": 0.150,
    "transverse_lift": 0.13,  # rad
    "transverse_sweep": 0.13,
    "superior_tilt": 0.10,
    "inferior_tilt": 0.10,
    "superior_splay": 0.09,
    "inferior_splay": 0.09,
    "spinous_droop": 0.09,
    "radius": 0.100,
    "wedge": 0.019,  # anterior/posterior height ratio SD 0.05-0.07 (CTSpinoPelvic1K)
    "hollow": 0.9,  # mm
    "waist": 0.03,
    "squareness": 0.12,
    "kidney": 0.05,
    "shear": 0.03,
    "jitter": 0.92,  # mm, of every joint between parts
    "asymmetry": 0.36,  # mm, of every joint, one side against the other
    "asymmetry_angle": 0.038,  # rad
    "asymmetry_length": 0.04,
}


@dataclass(frozen=True)
class Subject:
    """One person: `sex` (+1 male, -1 female) and standard normal scores shared by all levels."""

    sex: float
    scores: dict[str, float]


def sample_subject(rng: np.random.Generator) -> Subject:
    """A person: sex by a coin, a normal score for each spread, sizes correlated with each other (0.5)."""
    size = rng.normal()
    scores = {name: float(rng.normal()) for name in SPREADS}
    for name in ("width", "depth", "height", "posterior", "transverse_length", "spinous_length"):
        scores[name] = float(np.sqrt(0.5) * size + np.sqrt(0.5) * scores[name])
    return Subject(1.0 if rng.random() < 0.5 else -1.0, scores)


class _Draw:
    """Values of one level: shared score of the person and an own part, times the spread."""

    def __init__(self, subject: Subject, rng: np.random.Generator, amplitude: float) -> None:
        self._subject, self._rng, self._amplitude = subject, rng, amplitude

    def __call__(self, name: str) -> float:
        score = (np.sqrt(LEVEL_CORRELATION) * self._subject.scores[name]
                 + np.sqrt(1.0 - LEVEL_CORRELATION) * self._rng.normal())
        return float(self._amplitude * SPREADS[name] * np.clip(score, -2.5, 2.5))

    def factor(self, name: str) -> float:
        return float(np.exp(self(name)))


def sample_vertebra(level: str, subject: Subject, rng: np.random.Generator, amplitude: float = 1.0) -> VertebraShape:
    """A random vertebra of `level` for `subject`; `amplitude` scales every spread (0 = mean of the sex)."""
    mean = mean_vertebra(level).shape
    draw = _Draw(subject, rng, amplitude)
    body, canal, parts = mean.body.copy(), mean.canal.copy(), mean.parts.copy()
    width = np.exp(SEX_WIDTH * subject.sex) * draw.factor("width")
    depth = np.exp(SEX_WIDTH * subject.sex) * draw.factor("depth")
    height = np.exp(SEX_HEIGHT * subject.sex) * draw.factor("height")
    posterior = np.exp(0.045 * subject.sex) * draw.factor("posterior")
    _change_body(body, draw, (width, depth, height))
    _resize_posterior(mean, parts, canal, draw, (posterior, depth, height))
    _turn_processes(parts, draw)
    _sharpen_tips(parts)
    parts[:, 6:10] *= np.exp(amplitude * SPREADS["radius"] * rng.normal(size=(len(parts), 4)))
    joint = _jitter(parts, rng, amplitude * SPREADS["jitter"])
    joint[len(PAIRED_PARTS):, [0, 3]] = 0.0
    parts[:, :6] += joint
    left, right = (_kept_whole(side, mean.parts * posterior) for side in _asymmetric(parts, rng, amplitude))
    return VertebraShape(body, canal, left, mean.blend, right)


def _change_body(body: np.ndarray, draw: _Draw, scale: tuple[float, float, float]) -> None:
    body[0:3] *= scale
    body[3] = max(body[3] + draw("waist"), 0.05)
    body[4] = max(body[4] + draw("waist"), 0.02)
    body[5] = max(body[5] + draw("squareness"), 1.85)
    body[6] += draw("kidney")
    wedge = draw("wedge")
    body[7] += wedge
    body[8] -= wedge
    body[9] += draw("hollow")
    body[10] += draw("hollow")
    body[17] += draw("shear")


def _resize_posterior(mean: VertebraShape, parts: np.ndarray, canal: np.ndarray, draw: _Draw,
                      scale: tuple[float, float, float]) -> None:
    """Posterior elements grow about the back wall of the body, and make room for a wider or deeper canal."""
    posterior, depth, height = scale
    wall = mean.body[1]
    parts[:, 6:10] *= posterior
    _resize_pedicle(parts, draw)
    shift_wall = wall * (depth - 1.0)
    wider = mean.canal[0] * posterior * (draw.factor("canal_width") - 1.0)
    deeper = mean.canal[1] * posterior * (draw.factor("canal_depth") - 1.0)
    front = mean.canal[2] - mean.canal[1]
    for x, y, z in ((0, 1, 2), (3, 4, 5)):
        behind = np.clip((parts[:, y] - front) / (2.0 * mean.canal[1]), 0.0, 1.0)
        parts[:, y] = wall + posterior * (parts[:, y] - wall) + shift_wall + 2.0 * deeper * behind
        parts[:, x] = posterior * parts[:, x] + np.sign(np.round(parts[:, x], 1)) * wider
        parts[:, z] *= np.sqrt(height * posterior)
    canal[0] = posterior * canal[0] + wider
    canal[1] = posterior * canal[1] + deeper
    canal[2] = wall + posterior * (canal[2] - wall) + shift_wall + deeper


def _resize_pedicle(parts: np.ndarray, draw: _Draw) -> None:
    """Pedicles widen to the side, so that the canal keeps its width, and push the roots of the transverse processes."""
    parts[_PEDICLE, [6, 8]] *= draw.factor("pedicle_height")
    wider = parts[_PEDICLE, [7, 9]] * (draw.factor("pedicle_width") - 1.0)
    parts[_PEDICLE, [7, 9]] += wider
    parts[_PEDICLE, [0, 3]] += wider
    parts[_TRANSVERSE[0], [0, 3]] += (2.0 * wider[0], wider[0])
    parts[_TRANSVERSE[1], 0] += wider[0]


def _sharpen_tips(parts: np.ndarray) -> None:
    """Tips of transverse processes thinner than the mean's, where the tips of many people have run together."""
    tip = parts[_TRANSVERSE[1]]
    axis = tip[3:6] - tip[0:3]
    tip[3:6] += (1.0 - _TIP[0]) * 0.5 * tip[8] * axis / np.linalg.norm(axis)
    tip[8:10] *= _TIP


def _swing(parts: np.ndarray, rows: list[int], pivot: np.ndarray, angles: tuple[float, float, float],
           stretch: float) -> None:
    """Turn the joints of `rows` about `pivot` by xyz `angles` (rad) and stretch them away from it."""
    turn = Rotation.from_euler("xyz", angles).as_matrix()
    for columns in (slice(0, 3), slice(3, 6)):
        parts[rows, columns] = pivot + stretch * (parts[rows, columns] - pivot) @ turn.T


def _turn_processes(parts: np.ndarray, draw: _Draw) -> None:
    pivot = parts[_TRANSVERSE[0], :3].copy()
    _swing(parts, _TRANSVERSE, pivot, (0.0, draw("transverse_lift"), draw("transverse_sweep")),
           draw.factor("transverse_length"))
    pivot = parts[_SUPERIOR[0], :3].copy()
    _swing(parts, _SUPERIOR, pivot, (draw("superior_tilt"), draw("superior_splay"), 0.0),
           draw.factor("superior_length"))
    pivot = parts[_INFERIOR[0], :3].copy()
    _swing(parts, _INFERIOR, pivot, (draw("inferior_tilt"), draw("inferior_splay"), 0.0),
           draw.factor("inferior_length"))
    pivot = parts[_SPINOUS[0], :3].copy()
    _swing(parts, _SPINOUS, pivot, (draw("spinous_droop"), 0.0, 0.0), draw.factor("spinous_length"))
    parts[np.ix_(_SPINOUS, [6, 8])] *= draw.factor("spinous_height")
    parts[np.ix_(_SPINOUS, [7, 9])] *= draw.factor("spinous_thickness")


def _jitter(parts: np.ndarray, rng: np.random.Generator, sd: float) -> np.ndarray:
    """Shifts (P, 6) of both ends of each part: together by `sd` mm, apart by so little that the part hardly turns."""
    length = np.linalg.norm(parts[:, 3:6] - parts[:, 0:3], axis=1, keepdims=True)
    together = sd * rng.normal(size=(len(parts), 3))
    apart = np.minimum(0.7 * sd, 0.08 * sd * length) * rng.normal(size=(len(parts), 3))
    return np.concatenate([together - apart, together + apart], axis=1)


def _kept_whole(side: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Parts of a side without what would pierce the bone: laminae and inferior processes that meet below the arch, and
    a spinous process that is thinner than any real one, or comes apart behind the laminae."""
    x, rows = (0, 3), (_INDEX["lamina"], *_INFERIOR)
    for row in rows:
        for column in x if row != _INDEX["lamina"] else x[:1]:
            side[row, column] = max(side[row, column], _NARROWEST * mean[row, column])
    if len(side) > len(PAIRED_PARTS):
        root, middle = (side[row] for row in _SPINOUS[:2])
        middle[0:3] = 0.75 * root[3:6] + 0.25 * middle[0:3]
        middle[6] = max(middle[6], _LOWEST)
        lamina = side[_INDEX["lamina"]]
        middle[2] = min(middle[2], lamina[5] + lamina[8] + middle[6] - 2.0)
        side[np.ix_(_SPINOUS, [7, 9])] = np.maximum(side[np.ix_(_SPINOUS, [7, 9])], _THINNEST)
    return side


def _asymmetric(parts: np.ndarray, rng: np.random.Generator, amplitude: float) -> tuple[np.ndarray, np.ndarray]:
    sides = []
    for _ in range(2):
        side = parts.copy()
        side[:, :6] += _jitter(parts, rng, amplitude * SPREADS["asymmetry"] / np.sqrt(2.0))
        for rows in (_TRANSVERSE, _SUPERIOR, _INFERIOR):
            angles = amplitude * SPREADS["asymmetry_angle"] / np.sqrt(2.0) * rng.normal(size=3)
            stretch = np.exp(amplitude * SPREADS["asymmetry_length"] / np.sqrt(2.0) * rng.normal())
            _swing(side, rows, side[rows[0], :3].copy(), tuple(angles), float(stretch))
        sides.append(side)
    return sides[0], sides[1][: len(PAIRED_PARTS)]
