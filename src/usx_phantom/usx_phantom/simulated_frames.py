"""Simulated frames for the ultrasound report: a default sweep, and tissue without structure."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from usx_common.meshes import Mesh
from usx_common.transforms import make_transform
from usx_phantom.frame_measures import FrameSet
from usx_phantom.scene import Scene, SkinSurface
from usx_phantom.sweep import SweepSettings, path_pose
from usx_phantom.ultrasound import UltrasoundSimulator
from usx_phantom.ultrasound_settings import BeamSettings, ReceiverSettings, TissueSettings, UltrasoundSettings

LINE_MM = 0.45  # distance of scan lines at the usual depth of bone
NEAR_FIELD = 14.0  # mm of face, skin and fascia that are left out


def simulated_frames(scene: Scene, count: int, seed: int) -> FrameSet:
    """Scan lines of `count` displayed frames of the default sweep: read back from the pictures, as real ones are."""
    simulator = UltrasoundSimulator(scene, seed=seed)
    poses = [path_pose(scene, SweepSettings(), float(place)) for place in np.linspace(0.1, 0.9, count)]
    lines = np.array([simulator.converter.to_polar(frame) for frame in simulator.frames(poses)])
    truth = np.array([simulator.bone_depths(pose) for pose in poses])
    return FrameSet("simulated", lines, simulator.step, LINE_MM, NEAR_FIELD, truth)


def homogeneous_envelopes(count: int, seed: int) -> list[NDArray[np.float32]]:
    """Envelopes before compression of `count` frames of muscle without texture, attenuation, noise or bone in view;
    the near field and the edges of the fan are cut away."""
    tissue = TissueSettings(texture=0.0, interfaces=0.0, attenuation=0.0, skin_thickness=0.0, fat_thickness=0.0)
    settings = UltrasoundSettings(BeamSettings(focus_gain=0.0), tissue=tissue,
                                  receiver=ReceiverSettings(gain_slope=0.0, noise=0.0))
    simulator = UltrasoundSimulator(_HalfSpace(), seed=seed, settings=settings)
    rotation = np.column_stack([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    return [simulator.envelope(make_transform(rotation, [0.0, 0.0, 5.0 * n]), n)[10:-10, 60:-20] for n in range(count)]


@dataclass(frozen=True)
class _HalfSpace:
    """A half space of tissue with one bone out of reach."""

    skin: SkinSurface = field(default_factory=lambda: SkinSurface(0.0, 0.0, (10.0, 0.0, 0.0), 0.0))

    @property
    def meshes(self) -> dict[str, Mesh]:
        """One tetrahedron of 1 mm, 900 mm deep."""
        corners = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]) - [0.0, 900.0, 0.0]
        return {"L3": Mesh(corners, np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))}
