"""Makes an acquisition folder of a scene: bag, X-ray, CBCT, truth, and what an operator would know."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from usx_common import transforms
from usx_common.levels import LEVELS, label_of_level
from usx_phantom import cbct, dicom_xray, xray
from usx_phantom.patient_motion import draw_motion, moved_scene
from usx_phantom.phantom_scene import NOMINAL_CRANIAL, NOMINAL_POSTERIOR, body_centres
from usx_phantom.plain_yaml import dump, numbers
from usx_phantom.probe_geometry import ProbeGeometry
from usx_phantom.scene import Scene
from usx_phantom.sweep import SweepSettings, plan
from usx_phantom.sweep_recording import FRAMES, Sweep, frame_times, write_sweep
from usx_phantom.trouble import Trouble
from usx_phantom.trouble_plan import plan_trouble, wrong_calibration
from usx_phantom.truth_writing import write_motion, write_truth

FORMAT_VERSION = 1
# Raised whenever simulated images change, so that folders made before are not taken for the same.
IMAGES = 3
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
    trouble: Trouble = field(default_factory=Trouble)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words, for acquisition.yaml; trouble only where there is some."""
        words = asdict(self)
        del words["trouble"]
        return {**words, "trouble": self.trouble.as_dict()} if self.trouble.any else words


def silent(stage: str, done: int, total: int) -> None:
    """A `Report` that says nothing."""


def write_acquisition(scene: Scene, folder: Path, settings: AcquisitionSettings, source: dict[str, Any],
                      report: Report = silent, notes: Sequence[str] = ()) -> list[str]:
    """Write the acquisition folder of `scene`; `folder` appears only when it is complete.

    `source` goes into acquisition.yaml as it is; `notes`: what could not be done as wanted so far. Returns all such
    notes, which acquisition.yaml holds too. `report(stage, done, total)` is called as the work goes on.
    Raises UsxError (a pose out of reach, ...) and OSError (disk full, ...); nothing half made is left then.
    """
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        report("planning the sweep", 0, 1)
        sweep = plan_sweep(scene, settings)
        report("planning the sweep", 1, 1)
        told = [note for note in (*notes, _write_still(scene, partial, settings, sweep, report)) if note]
        dump(partial / "acquisition.yaml", _description(settings, source, sweep, told))
        write_sweep(scene, partial / "bag", sweep, settings.seed,
                    lambda done, total: report("ultrasound frames", done, total))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        return told
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def plan_sweep(scene: Scene, settings: AcquisitionSettings) -> Sweep:
    """The robot's way over the back of `scene`, and what goes wrong on it. Raises UsxError where it cannot be."""
    times = frame_times(settings.sweep)
    fates = plan_trouble(settings.trouble, times, settings.sweep.duration, settings.seed)
    trajectory = plan(scene, settings.sweep, None if fates.lifted is None else fates.lift)
    return Sweep(settings.sweep, trajectory, settings.naming, fates, settings.trouble.time_offset)


def _write_still(scene: Scene, folder: Path, settings: AcquisitionSettings, sweep: Sweep, report: Report) -> str:
    """X-ray, CBCT, truth and params.yaml: what is seen of the patient before or after the sweep, at rest.

    Returns what the patient's motion could not do as wanted, or nothing.
    """
    stages = 3 if settings.cbct else 2
    report("X-ray and truth", 0, stages)
    motion = draw_motion(scene, settings.trouble, settings.seed)
    imaged = scene if motion is None else moved_scene(scene, motion)
    (folder / "xray").mkdir()
    radiograph = xray.simulate_lateral(imaged, seed=settings.seed)
    dicom_xray.write(radiograph, folder / "xray" / "lateral.dcm")
    report("X-ray and truth", 1, stages)
    write_truth(scene, folder / "truth", radiograph.xray_to_cbct)
    if motion is not None:
        write_motion(imaged, folder / "truth", motion.whole)
    if settings.trouble.any:
        dump(folder / "truth" / "trouble.yaml", sweep.trouble.as_dict())
    calibration = wrong_calibration(settings.trouble, ProbeGeometry().image_to_probe, settings.seed)
    dump(folder / "params.yaml", operator_parameters(scene, imaged, radiograph, settings.seed, calibration))
    report("X-ray and truth", 2, stages)
    if settings.cbct:
        cbct.write_series(cbct.simulate(imaged, seed=settings.seed), folder / "cbct", settings.seed)
        report("X-ray and truth", 3, stages)
    return motion.message if motion is not None else ""


def _description(settings: AcquisitionSettings, source: dict[str, Any], sweep: Sweep, notes: list[str]
                 ) -> dict[str, Any]:
    """acquisition.yaml: how the folder was made and the errors that are in it on purpose."""
    words: dict[str, Any] = {
        "format_version": FORMAT_VERSION, "images": IMAGES, "source": source, "settings": settings.as_dict(),
        "frames": settings.sweep.frames, "frame_names": dict(FRAMES),
        "stated_errors": {"cbct_to_world_mm": DEVICE_ERROR_MM, "cbct_to_world_deg": DEVICE_ERROR_DEG,
                          "clicks_mm": list(CLICK_ERROR_MM),
                          "patient_axes": "as the patient was meant to lie; really up to 9 degrees off"}}
    if settings.trouble.any:
        words["image_messages"] = sweep.trouble.messages(settings.sweep.frames)
    if notes:
        words["notes"] = notes
    return words


def operator_parameters(scene: Scene, imaged: Scene, radiograph: xray.Radiograph, seed: int,
                        image_to_probe: np.ndarray) -> dict[str, Any]:
    """`parameters` with the errors of a seed: the device's of `scene`, clicks into the bodies of `imaged`."""
    rng = np.random.default_rng(np.random.SeedSequence([0x4F505221, seed]))
    device = device_estimate(scene, rng)
    clicks = jittered_clicks(radiograph, body_centres(imaged.labelmap), rng)
    return parameters(device, radiograph, clicks, image_to_probe)


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


def parameters(device: np.ndarray, radiograph: xray.Radiograph, clicks: np.ndarray, image_to_probe: np.ndarray
               ) -> dict[str, Any]:
    """ROS parameters of what an operator knows: one list under /**, the only wildcard that rclpy applies."""
    probe = ProbeGeometry()
    values = {
        # compounding_node
        "image_to_probe": numbers(image_to_probe), "pose_source": "tf",
        "world_frame": FRAMES["world"], "probe_frame": FRAMES["probe"], "image_frame": FRAMES["image"],
        "mask_kind": "fan", "mask_fan": [float(v) for v in probe.mask_fan],
        # xray_node
        "seed_labels": [label_of_level(level) for level in LEVELS],
        "seed_columns": [float(v) for v in clicks[:, 0]], "seed_rows": [float(v) for v in clicks[:, 1]],
        # registration_node
        "xray_placement": "device", "cbct_to_world": numbers(device),
        "xray_to_cbct": numbers(radiograph.xray_to_cbct),
        "patient_cranial_axis": list(NOMINAL_CRANIAL), "patient_posterior_axis": list(NOMINAL_POSTERIOR),
    }
    return {"/**": {"ros__parameters": values}}
