"""The whole chain on one true spine without nodes, bags or a clock: what they would make of an examination.

The same modules as in the nodes, with the nodes' own settings, called one after the other. Unless a CBCT is asked for,
points on the true surfaces stand for its bone, which only places the X-ray: that is quicker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, sample_surface
from usx_common.parameters import Parameter
from usx_common.transforms import Matrix, invert
from usx_compounding import parameters as compounding
from usx_compounding.compounding import make_engine
from usx_compounding.matching import MatchedFrame, TimedFrame
from usx_compounding.sweep import Sweep, SweepSettings
from usx_phantom import cbct, dicom_xray, xray
from usx_phantom.acquisition import AcquisitionSettings, operator_parameters, plan_sweep
from usx_phantom.dicom_common import CannotWrite
from usx_phantom.phantom_scene import build_scene
from usx_phantom.probe_geometry import ProbeGeometry
from usx_phantom.scene import Scene
from usx_phantom.sweep_recording import frame_times
from usx_phantom.ultrasound import UltrasoundSimulator
from usx_registration import parameters as registration
from usx_registration.joint_cloud import JointCloud
from usx_registration.session import Inputs, Session
from usx_xray import parameters as xray_parameters
from usx_xray.bodies import segment_bodies
from usx_xray.body_points import bodies_to_points
from usx_xray.ct_bone import bone_surface
from usx_xray.xray_image import read_xray

CBCT_POINTS = 6000  # a vertebra
NODES = (compounding.TABLE, registration.TABLE, xray_parameters.TABLE)
STAMP = 1


@dataclass(frozen=True)
class Examined:
    """``partial`` in frame spine, as registration_node publishes it, mm; ``cbct_to_spine`` (4, 4) takes the truth
    there."""

    partial: JointCloud
    cbct_to_spine: Matrix


def examine(meshes: Mapping[str, Mesh], settings: AcquisitionSettings, stride: int = 1, with_cbct: bool = False
            ) -> Examined:
    """What the nodes make of closed meshes L1 .. L5 (mm, LPS); ``stride``: of so many frames of the sweep one is taken;
    ``with_cbct``: its bone is found in a simulated CBCT, as the nodes do, not taken from the true surfaces.

    The same arguments give the same answer. Raises UsxError where an acquisition cannot be made or is refused, or
    for trouble in the ``settings``, which is of bags; OSError where the X-ray's file cannot be written.
    """
    _check(meshes, settings, stride)
    scene = build_scene(dict(meshes), settings.seed)
    radiograph = xray.simulate_lateral(scene, seed=settings.seed)
    operator = _operator(scene, radiograph, settings.seed)
    bodies, labels = _bodies(radiograph, operator)
    compound = compounding.live_settings(_values(compounding.TABLE, operator)).sweep
    assert compound is not None  # the operator knows the calibration
    bone = _bone(scene, settings, compound, stride)
    world_to_volume = invert(compound.lattice.volume_to_world)
    imaged = _imaged(scene, operator, settings.seed) if with_cbct else _surfaces(meshes, settings.seed)
    session = Session(registration.make_settings(_values(registration.TABLE, operator)))
    outcome = session.process(Inputs(bone, STAMP, world_to_volume, imaged, bodies, labels))
    if outcome.partial is None:
        raise UsxError(f"the registration was refused: {outcome.verdict.text}")
    volume_to_spine = invert(outcome.edges["us_volume", "spine"])
    return Examined(outcome.partial, volume_to_spine @ world_to_volume @ scene.cbct_to_world)


def _check(meshes: Mapping[str, Mesh], settings: AcquisitionSettings, stride: int) -> None:
    if set(meshes) != set(LEVELS):
        raise UsxError(f"meshes {', '.join(meshes) or 'none'}: they must be {', '.join(LEVELS)}")
    if not 1 <= stride <= settings.sweep.frames:
        raise UsxError(f"stride {stride} must be within 1 .. {settings.sweep.frames}, the frames of the sweep")
    if settings.trouble.any:
        raise UsxError("trouble happens to bags: without nodes there is none")


def _operator(scene: Scene, radiograph: xray.Radiograph, seed: int) -> dict[str, Any]:
    """ROS parameters of what an operator knows, errors included."""
    known = operator_parameters(scene, scene, radiograph, seed, ProbeGeometry().image_to_probe)
    return known["/**"]["ros__parameters"]


def _values(table: Iterable[Parameter], operator: Mapping[str, Any]) -> dict[str, Any]:
    """A node's parameters: what the operator knows, else the defaults."""
    return {parameter.name: operator.get(parameter.name, parameter.default) for parameter in table}


def _surfaces(meshes: Mapping[str, Mesh], seed: int) -> NDArray[np.float64]:
    """Points (N, 3) on the true surfaces, mm, frame cbct."""
    return np.concatenate([sample_surface(mesh, CBCT_POINTS, seed=seed) for mesh in meshes.values()])


def _imaged(scene: Scene, operator: Mapping[str, Any], seed: int) -> NDArray[np.float64]:
    """Points (N, 3) of the bone in a simulated CBCT, mm, frame cbct."""
    settings = xray_parameters.bone(_values(xray_parameters.TABLE, operator))
    found = bone_surface(cbct.simulate(scene, seed=seed), settings)
    return found.astype(np.float32).astype(np.float64)  # as a message holds them


def _bodies(radiograph: xray.Radiograph, operator: Mapping[str, Any]) -> tuple[NDArray[np.float64], NDArray]:
    """Points (K, 3) of the bodies that are found in the radiograph, mm, frame xray, and their labels (K,)."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lateral.dcm"
        try:
            dicom_xray.write(radiograph, path)
        except CannotWrite as error:  # a full disk is no matter of the spine
            raise OSError(str(error)) from error
        image = read_xray(path)
    found = segment_bodies(image.pixels, image.geometry,
                           xray_parameters.seeds(_values(xray_parameters.TABLE, operator)))
    return bodies_to_points(found.bodies, image.geometry)


def _bone(scene: Scene, settings: AcquisitionSettings, compound: SweepSettings, stride: int) -> NDArray[np.float64]:
    """(N, 3) mm, frame us_volume: the bone surface of a sweep."""
    trajectory = plan_sweep(scene, settings).trajectory
    times = frame_times(settings.sweep)[(stride - 1) // 2::stride]
    poses = [trajectory.probe_to_world(time) for time in times]
    world_to_cbct = invert(scene.cbct_to_world)
    frames = UltrasoundSimulator(scene, seed=settings.seed).frames([world_to_cbct @ pose for pose in poses], threads=1)
    engine, sweep = make_engine("numba", threads=1), None
    for number, (image, pose) in enumerate(zip(frames, poses, strict=True)):
        sweep = sweep or Sweep(compound, engine, (image.shape[0], image.shape[1]))
        sweep.add(MatchedFrame(TimedFrame(number + 1, number, image), pose))
    assert sweep is not None
    return sweep.bone_points().points
