"""Makes an acquisition folder of a scene: bag, X-ray, CBCT, truth, and what an operator would know."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from usx_common import transforms
from usx_common.levels import LEVELS, label_of_level
from usx_common.meshes import write_mesh
from usx_common.volumes import write_volume
from usx_phantom import cbct, dicom_xray, robot, xray
from usx_phantom.bag_writing import Edge, SweepBag, image_message, joints_message, tf_message
from usx_phantom.phantom_scene import NOMINAL_CRANIAL, NOMINAL_POSTERIOR, body_centres
from usx_phantom.probe_geometry import ProbeGeometry
from usx_phantom.scene import Scene
from usx_phantom.sweep import PROBE_TO_FLANGE, SweepSettings, Trajectory, plan
from usx_phantom.ultrasound import UltrasoundSimulator

FORMAT_VERSION = 1
START = 1_750_000_000 * 10**9  # ns; recordings begin at the same moment so that a seed gives the same bytes
LEAD = 0.25  # s of robot state before the first and after the last frame
IMAGE_LATENCY, ROBOT_LATENCY = 15_000_000, 1_000_000  # ns from a stamp to its receipt
FRAMES = {"world": "world", "probe": "us_probe", "image": "us_image"}
DEVICE_ERROR_MM, DEVICE_ERROR_DEG = 5.0, 3.0
CLICK_ERROR_MM = (2.0, 3.5)

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class AcquisitionSettings:
    """What an acquisition is made with. `naming`: robot frame names, a key of robot.NAMING; `cbct`: with a CBCT."""

    seed: int = 0
    sweep: SweepSettings = field(default_factory=SweepSettings)
    naming: str = "rolling"
    cbct: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words, for acquisition.yaml."""
        return asdict(self)


def silent(stage: str, done: int, total: int) -> None:
    """A `Report` that says nothing."""


def write_acquisition(scene: Scene, folder: Path, settings: AcquisitionSettings, source: dict[str, Any],
                      report: Report = silent) -> None:
    """Write the acquisition folder of `scene`; `folder` appears only when it is complete.

    `source` goes into acquisition.yaml as it is. `report(stage, done, total)` is called as the work goes on.
    Raises UsxError (a pose out of reach, ...) and OSError (disk full, ...); nothing half made is left then.
    """
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        report("planning the sweep", 0, 1)
        trajectory = plan(scene, settings.sweep)
        report("planning the sweep", 1, 1)
        _write_xray_and_cbct(scene, partial, settings, source, report)
        simulator = UltrasoundSimulator(scene, seed=settings.seed)
        _write_bag(scene, partial / "bag", settings, (trajectory, simulator), report)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def frame_times(sweep: SweepSettings) -> np.ndarray:
    """Times (frames,) s since the start of the sweep at which frames are taken, rounded to whole nanoseconds."""
    return np.round((np.arange(sweep.frames) + 0.5) / sweep.frames * sweep.duration, 9)


def _write_xray_and_cbct(scene: Scene, folder: Path, settings: AcquisitionSettings, source: dict[str, Any],
                         report: Report) -> None:
    stages = 3 if settings.cbct else 2
    report("X-ray and truth", 0, stages)
    (folder / "xray").mkdir()
    radiograph = xray.simulate_lateral(scene, seed=settings.seed)
    dicom_xray.write(radiograph, folder / "xray" / "lateral.dcm")
    report("X-ray and truth", 1, stages)
    _write_truth(scene, folder / "truth", radiograph)
    rng = np.random.default_rng(np.random.SeedSequence([0x4F505221, settings.seed]))
    centres = body_centres(scene.labelmap)
    device = device_estimate(scene, rng)
    clicks = jittered_clicks(radiograph, centres, rng)
    _dump(folder / "params.yaml", parameters(device, radiograph, clicks))
    _dump(folder / "acquisition.yaml", {
        "format_version": FORMAT_VERSION, "source": source, "settings": settings.as_dict(),
        "frames": settings.sweep.frames, "frame_names": dict(FRAMES),
        "stated_errors": {"cbct_to_world_mm": DEVICE_ERROR_MM, "cbct_to_world_deg": DEVICE_ERROR_DEG,
                          "clicks_mm": list(CLICK_ERROR_MM),
                          "patient_axes": "as the patient was meant to lie; really up to 9 degrees off"}})
    report("X-ray and truth", 2, stages)
    if settings.cbct:
        cbct.write_series(cbct.simulate(scene, seed=settings.seed), folder / "cbct", settings.seed)
        report("X-ray and truth", 3, stages)


def _write_truth(scene: Scene, folder: Path, radiograph: xray.Radiograph) -> None:
    folder.mkdir()
    for level, mesh in scene.meshes.items():
        write_mesh(folder / f"{level}.ply", mesh, comment=f"{level}, mm, frame cbct (LPS)")
    write_volume(folder / "labelmap.nrrd", scene.labelmap)
    geometry = ProbeGeometry()
    _dump(folder / "transforms.yaml", {
        "cbct_to_world": _numbers(scene.cbct_to_world), "xray_to_cbct": _numbers(radiograph.xray_to_cbct),
        "image_to_probe": _numbers(geometry.image_to_probe)})


def device_estimate(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """cbct_to_world (4, 4) as the device chain gives it: turned about the spine by 3 degrees, shifted by 5 mm."""
    axis, direction = rng.normal(size=3), rng.normal(size=3)
    turn = transforms.rotation_about_axis(axis, np.radians(DEVICE_ERROR_DEG))
    middle = transforms.apply(scene.cbct_to_world, scene.meshes["L3"].vertices.mean(0))
    shift = DEVICE_ERROR_MM * direction / np.linalg.norm(direction)
    error = transforms.make_transform(turn, middle + shift - turn @ middle)
    return error @ scene.cbct_to_world


def jittered_clicks(radiograph: xray.Radiograph, centres: dict[str, np.ndarray], rng: np.random.Generator
                    ) -> np.ndarray:
    """(5, 2) column and row of a click near the middle of each body: 2 to 3.5 mm off, measured in the patient."""
    clicks = []
    for level in LEVELS:
        pixel = radiograph.project(centres[level][None])[0]
        depth = transforms.apply(transforms.invert(radiograph.xray_to_cbct), centres[level])[2]
        per_mm = radiograph.camera_matrix[0, 0] / depth
        angle, distance = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(*CLICK_ERROR_MM)
        clicks.append(pixel + per_mm * distance * np.array([np.cos(angle), np.sin(angle)]))
    return np.round(np.array(clicks), 1)


def parameters(device: np.ndarray, radiograph: xray.Radiograph, clicks: np.ndarray) -> dict[str, Any]:
    """ROS parameters of what an operator knows: one list under /**, the only wildcard that rclpy applies."""
    probe = ProbeGeometry()
    values = {
        # compounding_node
        "image_to_probe": _numbers(probe.image_to_probe), "pose_source": "tf",
        "world_frame": FRAMES["world"], "probe_frame": FRAMES["probe"], "image_frame": FRAMES["image"],
        "mask_kind": "fan", "mask_fan": [float(v) for v in probe.mask_fan],
        # xray_node
        "seed_labels": [label_of_level(level) for level in LEVELS],
        "seed_columns": [float(v) for v in clicks[:, 0]], "seed_rows": [float(v) for v in clicks[:, 1]],
        # registration_node
        "xray_placement": "device", "cbct_to_world": _numbers(device),
        "xray_to_cbct": _numbers(radiograph.xray_to_cbct),
        "patient_cranial_axis": list(NOMINAL_CRANIAL), "patient_posterior_axis": list(NOMINAL_POSTERIOR),
    }
    return {"/**": {"ros__parameters": values}}


def _write_bag(scene: Scene, folder: Path, settings: AcquisitionSettings,
               makers: tuple[Trajectory, UltrasoundSimulator], report: Report) -> None:
    trajectory, simulator = makers
    times = frame_times(settings.sweep)
    world_to_cbct = transforms.invert(scene.cbct_to_world)
    poses = [world_to_cbct @ trajectory.probe_to_world(time) for time in times]
    states = robot_states(trajectory, settings)
    state = next(states, None)
    with SweepBag(folder) as bag:
        first = START - int(LEAD * 1e9)
        bag.write("/tf_static", first, tf_message(static_edges(trajectory, settings), first))
        for number, pixels in enumerate(simulator.frames(poses)):
            stamp = START + round(times[number] * 1e9)
            while state is not None and state[1] <= stamp + IMAGE_LATENCY:
                bag.write(*state)
                state = next(states, None)
            bag.write("/us/image_raw", stamp + IMAGE_LATENCY, image_message(pixels, stamp, FRAMES["image"]))
            report("ultrasound frames", number + 1, len(times))
        while state is not None:
            bag.write(*state)
            state = next(states, None)


def robot_states(trajectory: Trajectory, settings: AcquisitionSettings) -> Iterator[tuple[str, int, bytes]]:
    """Messages (topic, receive time ns, CDR) of /joint_states and /tf, a little longer than the sweep."""
    names = robot.NAMING[settings.naming]
    duration = settings.sweep.duration
    steps = int(np.ceil((duration + 2.0 * LEAD) * names.rate_hz))
    for step in range(steps + 1):
        nanoseconds = round(step * 1e9 / names.rate_hz) - int(LEAD * 1e9)
        time = float(np.clip(nanoseconds * 1e-9, 0.0, duration))
        stamp = START + nanoseconds
        q = trajectory.angles(time)
        joints = joints_message(names.joints, q, trajectory.velocities(time), stamp)
        yield "/joint_states", stamp + ROBOT_LATENCY, joints
        edges = [Edge(names.links[i], names.links[i + 1], matrix) for i, matrix in
                 enumerate(robot.joint_transforms(q))]
        yield "/tf", stamp + ROBOT_LATENCY, tf_message(edges, stamp)


def static_edges(trajectory: Trajectory, settings: AcquisitionSettings) -> list[Edge]:
    """world -> robot root -> link_0, link_7 -> flange, flange -> us_probe."""
    names = robot.NAMING[settings.naming]
    return [Edge(FRAMES["world"], names.root, trajectory.base_to_world),
            Edge(names.root, names.links[0], np.eye(4)),
            Edge(names.links[-1], names.flange, robot.flange_transform()),
            Edge(names.flange, FRAMES["probe"], PROBE_TO_FLANGE)]


def _numbers(matrix: np.ndarray) -> list[float]:
    return [float(v) for v in np.asarray(matrix).ravel()]


def _dump(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110))
