"""A case whose input was made worse: X-ray displaced or tilted, ultrasound missing or noisy, levels mistaken.

The truth stays, but for mistaken levels, where the bone at a place has the name that the input gives it; the metric's
unit stays that of the unharmed input. Levels' inputs and the whole spine's cloud are changed in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS, SOURCE_ULTRASOUND, SOURCE_XRAY, label_of_level
from usx_completion.data.examination import LevelInput
from usx_completion.data.normalisation import normalisation_of
from usx_completion.data.observed import XrayBody
from usx_completion.data.presets import DropRules
from usx_completion.data.sampling_points import resample
from usx_completion.data.splits import GOLDEN
from usx_completion.evaluation.case import Case, CaseInput
from usx_completion.rigid import rotation_matrix

STREAM = 0x574F5253
ABOVE = dict(zip(LEVELS[1:], LEVELS[:-1], strict=True))


@dataclass(frozen=True)
class Condition:
    """``curve`` it is a point of, ``amount`` along that curve (mm, degrees or share), and one or more of: the X-ray's
    ``shift_mm`` in its plane and ``turn_deg`` about left-right, ``tilt_deg`` out of its plane; ``cut``: share of the
    sweep that is missing at its caudal end; ``half``: the right half is missing; ``noise_mm``; ``levels_off``: levels
    named one too high; ``no_xray``; ``no_ultrasound``; ``drawn_mm``: bodies drawn too large (or too small) by so much
    on every side."""

    curve: str
    amount: float
    shift_mm: float = 0.0
    turn_deg: float = 0.0
    tilt_deg: float = 0.0
    cut: float = 0.0
    half: bool = False
    noise_mm: float = 0.0
    levels_off: bool = False
    no_xray: bool = False
    no_ultrasound: bool = False
    drawn_mm: float = 0.0


def _conditions() -> dict[str, Condition]:
    found = {"clean": Condition("clean", 0.0)}
    for amount in (2.5, 5.0, 7.5, 10.0):
        found[f"X-ray {amount:g} mm off"] = Condition("X-ray off, mm", amount, shift_mm=amount)
    found["X-ray 5 mm and 5 deg off"] = Condition("other", 0.0, shift_mm=5.0, turn_deg=5.0)
    for amount in (4.0, 8.0):
        found[f"X-ray tilted {amount:g} deg"] = Condition("X-ray tilted, deg", amount, tilt_deg=amount)
    for amount in (-1.0, 1.0):
        found[f"bodies drawn {abs(amount):g} mm too {'large' if amount > 0 else 'small'}"] = Condition(
            "bodies drawn too large, mm", amount, drawn_mm=amount)
    for share in (0.2, 0.4):
        found[f"{100 * share:.0f} % of the sweep missing"] = Condition("sweep missing, share", share, cut=share)
    for amount in (1.0, 2.0):
        found[f"noise {amount:g} mm"] = Condition("noise, mm", amount, noise_mm=amount)
    found["right half missing"] = Condition("other", 0.0, half=True)
    found["levels off by one"] = Condition("other", 0.0, levels_off=True)
    found["no X-ray"] = Condition("other", 0.0, no_xray=True)
    found["no ultrasound"] = Condition("other", 0.0, no_ultrasound=True)
    return found


CONDITIONS = _conditions()
QUICK_CONDITIONS = ("clean", "X-ray 5 mm off", "X-ray 10 mm off", "X-ray 5 mm and 5 deg off", "right half missing",
                    "no X-ray")


def perturbed(case: Case, condition: Condition) -> Case:
    """The case with its input made worse; the same case and condition give the same bytes."""
    random = np.random.default_rng(np.random.SeedSequence([STREAM, case.number]))
    if condition.shift_mm or condition.turn_deg or condition.tilt_deg:
        case = _moved_xray(case, condition)
    if condition.drawn_mm:
        case = replace(case, given=_redrawn(case.given, condition.drawn_mm))
    if condition.cut or condition.half:
        case = replace(case, given=_cut(case.given, condition))
    if condition.noise_mm:
        case = replace(case, given=_noisy(case.given, condition.noise_mm, random))
    if condition.no_xray:
        case = replace(case, given=_without_xray(case.given))
    if condition.no_ultrasound:  # a level's input is its ultrasound: there is none
        case = replace(case, given=_chosen(replace(case.given, inputs={}), case.given.sources == SOURCE_XRAY))
    return _renamed(case) if condition.levels_off else case


def _moved_xray(case: Case, condition: Condition) -> Case:
    """All bodies moved together: shifted within the plane, turned about left-right at the middle of the X-ray's points,
    tilted about an axis in the plane. Directions go round from case to case and are the same along a curve.

    Ultrasound points get the labels that the moved bodies give them: a label made with the X-ray in its place would
    tell where that is.
    """
    given, number = case.given, case.number
    xray = given.sources == SOURCE_XRAY
    if not xray.any():
        return case
    middle = given.points[xray].mean(axis=0)
    way = axis = 2.0 * np.pi * ((number * GOLDEN + 0.125) % 1.0)
    sign = 1.0 if number % 2 == 0 else -1.0
    turn = rotation_matrix(np.array([sign * np.radians(condition.turn_deg), 0.0, 0.0]))
    tilt = rotation_matrix(np.radians(condition.tilt_deg) * np.array([0.0, np.cos(axis), np.sin(axis)]))
    shift = condition.shift_mm * np.array([0.0, np.cos(way), np.sin(way)])

    def move(points: NDArray) -> NDArray[np.float64]:
        return (points - middle) @ (turn @ tilt).T + middle + shift

    moved = _xray_by(given, move, turn[1:, 1:])
    if case.naming is None:
        return replace(case, given=moved)
    bodies = {level: XrayBody(move(body.filled), move(body.outline), body.normals @ turn[1:, 1:].T)
              for level, body in case.naming.bodies.items()}
    naming = replace(case.naming, bodies=bodies)
    labels = moved.labels.copy()
    labels[~xray] = naming.labels(moved.points[~xray])
    return replace(case, given=replace(moved, labels=labels), naming=naming)


def _xray_by(given: CaseInput, move: Callable[[NDArray], NDArray], turn: NDArray) -> CaseInput:
    """The X-ray's points moved, in the cloud and in the levels' inputs; ``turn`` (2, 2): of the outline's normals."""
    xray = given.sources == SOURCE_XRAY
    points = given.points.copy()
    points[xray] = move(points[xray])
    inputs = {}
    for level, mine in given.inputs.items():
        frame = mine.normalisation
        filled, outline = (frame.apply(move(frame.invert(cloud))) for cloud in (mine.filled, mine.outline))
        inputs[level] = replace(mine, filled=filled, outline=outline, outline_normals=mine.outline_normals @ turn.T)
    return replace(given, points=points, inputs=inputs)


def _redrawn(given: CaseInput, more_mm: float) -> CaseInput:
    """Every body larger by ``more_mm`` above, below, in front and at the back, as another person might draw it."""
    points, inputs = given.points.copy(), dict(given.inputs)
    for level in LEVELS:
        rows = (given.sources == SOURCE_XRAY) & (given.labels == label_of_level(level))
        points[rows] = _grown(points[rows], more_mm)
        if level in inputs:
            mine, frame = inputs[level], inputs[level].normalisation
            filled, outline = (frame.apply(_grown(frame.invert(cloud), more_mm))
                               for cloud in (mine.filled, mine.outline))
            inputs[level] = replace(mine, filled=filled, outline=outline)
    return replace(given, points=points, inputs=inputs)


def _grown(body: NDArray, more_mm: float) -> NDArray[np.float64]:
    if len(body) == 0:
        return body
    low, high = body.min(axis=0), body.max(axis=0)
    middle = 0.5 * (low + high)
    factors = 1.0 + 2.0 * more_mm / np.maximum(high - low, 1.0) * [0.0, 1.0, 1.0]
    return middle + (body - middle) * factors


def _cut(given: CaseInput, condition: Condition) -> CaseInput:
    """Ultrasound taken away: the caudal end of the sweep, or the patient's right half. The X-ray is placed amid what is
    left of it, as the paper does, so that with half of it the X-ray too lies aside."""
    ultrasound = given.sources == SOURCE_ULTRASOUND
    seen = given.points[ultrasound]
    low, high = seen[:, 2].min(), seen[:, 2].max()
    border, middle = low + condition.cut * (high - low), _middle(seen)

    def kept(points: NDArray) -> NDArray[np.bool_]:
        rows = points[:, 2] >= border
        return rows & (points[:, 0] >= middle) if condition.half else rows

    aside = np.array([_middle(seen[kept(seen)]) - middle, 0.0, 0.0]) if kept(seen).any() else np.zeros(3)
    less = _chosen(replace(given, inputs=_changed(given, lambda points: points[kept(points)])),
                   ~ultrasound | kept(given.points))
    return _xray_by(less, lambda points: points + aside, np.eye(2))


def _middle(points: NDArray) -> float:
    return 0.5 * float(points[:, 0].min() + points[:, 0].max())


def _noisy(given: CaseInput, noise_mm: float, random: np.random.Generator) -> CaseInput:
    """Every ultrasound point displaced at random, ``noise_mm`` (SD) along each axis."""
    seen = given.sources == SOURCE_ULTRASOUND
    points = given.points.copy()
    points[seen] += noise_mm * random.standard_normal((int(seen.sum()), 3))
    inputs = _changed(given, lambda cloud: cloud + noise_mm * random.standard_normal(cloud.shape))
    return replace(given, points=points, inputs=inputs)


def _changed(given: CaseInput, change: Callable[[NDArray], NDArray]) -> dict[str, LevelInput]:
    """Levels' inputs with other ultrasound points, normalised anew; a level with too few points is dropped."""
    found = {}
    for level, mine in given.inputs.items():
        frame = mine.normalisation
        points = change(frame.invert(mine.partial))
        if len(points) < DropRules().smallest:
            continue
        try:
            anew = normalisation_of(points, given.normalisation)
        except UsxError:
            continue  # no width left: nothing that the level's input could be made of
        partial = anew.apply(points)
        rows = resample(partial, len(mine.partial))
        filled, outline = (anew.apply(frame.invert(cloud)) for cloud in (mine.filled, mine.outline))
        found[level] = replace(mine, partial=partial[rows], filled=filled, outline=outline, normalisation=anew)
    return found


def _without_xray(given: CaseInput) -> CaseInput:
    """No point of the X-ray; the levels' names stay, as an operator would give them."""
    seen = given.sources == SOURCE_ULTRASOUND
    nothing = np.empty((0, 3))
    inputs = {level: replace(mine, filled=nothing, outline=nothing, outline_normals=np.empty((0, 2)))
              for level, mine in given.inputs.items()}
    return _chosen(replace(given, inputs=inputs), seen)


def _chosen(given: CaseInput, rows: NDArray[np.bool_]) -> CaseInput:
    return replace(given, points=given.points[rows], labels=given.labels[rows], sources=given.sources[rows])


def _renamed(case: Case) -> Case:
    """Each level under the name of the one above it: L2 is taken for L1, and so on; what was L1 has no name any more.

    The truth of a name is the bone that the input calls so, whose shape the wrong prior must still meet.
    """
    given = case.given
    labels = np.where(given.labels > 20, given.labels - 1, 0)
    keep = (labels > 0) | (given.sources == SOURCE_ULTRASOUND)
    inputs = {ABOVE[level]: mine for level, mine in given.inputs.items() if level in ABOVE}
    return replace(case, given=_chosen(replace(given, labels=labels, inputs=inputs), keep),
                   truth={ABOVE[level]: mesh for level, mesh in case.truth.items() if level in ABOVE},
                   units={ABOVE[level]: unit for level, unit in case.units.items() if level in ABOVE})
