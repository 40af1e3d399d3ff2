"""What registration_node says of itself, and small checks of its inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from usx_common.clouds import finite_rows
from usx_common.levels import LEVEL_NAMES, SOURCE_ULTRASOUND
from usx_registration.session import Outcome, SessionSettings

Array = NDArray[np.float64]
Points = Array | None
Labelled = tuple[Points, NDArray[np.int64] | None]


def finite(points: Array) -> Array:
    """The rows of (N, 3) whose numbers are all finite."""
    return points[finite_rows(points)]


def finite_labelled(points: Array, labels: NDArray) -> Labelled:
    """Finite rows of (N, 3) with their labels (N,) as whole numbers; labels that are not finite become 0.

    Where nothing is left, (None, None): an X-ray without bodies withdraws those of the one before.
    """
    keep = finite_rows(points)
    if not keep.any():
        return None, None
    whole = np.nan_to_num(labels[keep], nan=0.0, posinf=0.0, neginf=0.0).round().astype(np.int64)
    return points[keep], whole


def needs_world(settings: SessionSettings) -> bool:
    """Whether anything configured is given in the world frame."""
    return settings.axes is not None or settings.cbct.cbct_to_world is not None


def waiting(settings: SessionSettings) -> str:
    """The sentence before the first ultrasound bone."""
    if settings.axes is None:
        return ("waiting for ultrasound bone; patient_cranial_axis and patient_posterior_axis are not set, so a CBCT "
                "is needed to know the patient's directions")
    return "waiting for ultrasound bone"


def is_good(outcome: Outcome) -> bool:
    """Whether nothing is to be doubted."""
    return outcome.verdict.passed and not outcome.notes


def sentence(outcome: Outcome) -> str:
    """The outcome in one sentence; figures that change with every update are left to ``facts``."""
    if not outcome.verdict.passed:
        return f"refused ({outcome.verdict.reason}): {outcome.verdict.text}"
    levels = levels_found(outcome)
    text = "CBCT registered to ultrasound" if outcome.by_images else "ultrasound placed in the spine frame"
    text += f"; levels {', '.join(levels)}" if levels else "; levels unknown"
    return "; ".join([text, *outcome.notes])


def levels_found(outcome: Outcome) -> list[str]:
    """Names of the levels that ultrasound points were given to."""
    if outcome.partial is None:
        return []
    ours = outcome.partial.labels[outcome.partial.sources == SOURCE_ULTRASOUND]
    return [name for label, name in LEVEL_NAMES.items() if np.any(ours == label)]


def facts(outcome: Outcome) -> dict[str, str]:
    """The figures of the gate, for /diagnostics: mm, degrees, shares."""
    return {name: f"{value:.3f}" for name, value in outcome.verdict.numbers.items()}
