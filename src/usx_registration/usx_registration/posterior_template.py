"""The mean posterior surface of each level, and its placement on the bodies seen in an X-ray."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.levels import label_of_level
from usx_registration.bodies import Body

Array = NDArray[np.float64]

SIZE_BOUNDS = (0.75, 1.3)


@dataclass(frozen=True)
class LevelTemplate:
    """``points`` (N, 3) mm in the axes of the mean body (x left, y posterior, z cranial), origin at its centre;
    ``height``, ``depth`` of that body and ``spacing`` to its neighbours' centres, mm."""

    points: Array
    height: float
    depth: float
    spacing: float


@cache
def load_template() -> dict[int, LevelTemplate]:
    """Templates by VerSe label, as packaged (built by ``usx_registration.build_template``)."""
    text = (files("usx_registration") / "data" / "posterior_template.json").read_text()
    try:
        levels = json.loads(text)["levels"]
        return {label_of_level(name): LevelTemplate(np.array(level["points"], dtype=np.float64), level["height"],
                                                    level["depth"], level["spacing"])
                for name, level in levels.items()}
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UsxError(f"posterior_template.json is damaged ({error!r}); build it anew with "
                       "python -m usx_registration.build_template") from error


def relative_size(template: LevelTemplate, body: Body) -> float:
    """Size of a vertebra against the template, from the depth of its body and the spacing of its neighbours.

    The height is left out: it is what a fracture changes.
    """
    ratios = [body.depth / template.depth]
    if np.isfinite(body.spacing):
        ratios.append(body.spacing / template.spacing)
    return float(np.clip(np.mean(ratios), *SIZE_BOUNDS))


def place_template(bodies: dict[int, Body]) -> dict[int, Array]:
    """Template points (N, 3) mm of each level in frame ``spine``, sized and turned like the bodies."""
    template = load_template()
    return {label: transforms.apply(body.body_to_spine, relative_size(template[label], body) * template[label].points)
            for label, body in bodies.items()}


def place_neighbours(bodies: dict[int, Body]) -> list[Array]:
    """Template points (N, 3) mm of the vertebrae that must follow above and below those seen in the X-ray.

    They take up the ultrasound points of the neighbours, which would otherwise go to the outermost levels. Each is
    its neighbour's own template, a disc and a body further on. A lone body has no neighbours: the spacing is not known.
    """
    ends = [(min(bodies), 1.0), (max(bodies), -1.0)] if len(bodies) > 1 else []
    placed = []
    for label, direction in ends:
        body = bodies[label]
        step = transforms.make_transform(np.eye(3), [0.0, 0.0, direction * body.spacing])
        moved = replace(body, body_to_spine=body.body_to_spine @ step)
        template = load_template()[label]
        placed.append(transforms.apply(moved.body_to_spine, relative_size(template, body) * template.points))
    return placed
