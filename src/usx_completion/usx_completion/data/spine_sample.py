"""A true spine, and the same bones in another posture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_common.transforms import Matrix, make_transform
from usx_phantom.posture import PostureSpread, random_change
from usx_phantom.spine_chain import SpineChain


@dataclass(frozen=True)
class SpineSample:
    """A true spine. ``meshes``: level -> Mesh, mm, frame spine (LPS: x left, y posterior, z cranial).

    ``level_to_spine``: level -> (4, 4) pose of the level's frame (body centroid, template axes). ``subject``: who it
    is; deformations of one subject share it. ``body``: level -> (V,) mask of the vertebral body's vertices.
    ``corresponding``: whether vertices of one index are the same place of the template at every level and subject.
    """

    meshes: Mapping[str, Mesh]
    level_to_spine: Mapping[str, Matrix]
    subject: str
    body: Mapping[str, NDArray[np.bool_]]
    corresponding: bool = False
    deformation: int = 0

    def moved(self, old_to_new: Mapping[str, Matrix]) -> SpineSample:
        """The sample with every level moved rigidly by its own (4, 4) matrix."""
        return replace(self, meshes={level: mesh.transformed(old_to_new[level]) for level, mesh in self.meshes.items()},
                       level_to_spine={level: old_to_new[level] @ pose for level, pose in self.level_to_spine.items()})


def change_posture(sample: SpineSample, spread: PostureSpread, seed: int) -> SpineSample:
    """The same bones in a random other posture; the spine as a whole stays in its place, and bones do not overlap."""
    chain = SpineChain(dict(sample.meshes), dict(sample.level_to_spine))
    return sample.moved(chain.bend(random_change(seed, spread)).motions)


def centred(sample: SpineSample) -> SpineSample:
    """The spine moved so that the mean of all its vertices is the origin, where the paper's cameras expect it."""
    middle = np.concatenate([mesh.vertices for mesh in sample.meshes.values()]).mean(axis=0)
    return sample.moved(dict.fromkeys(LEVELS, make_transform(np.eye(3), -middle)))
