"""The truth of an acquisition, for reports and tests; no node reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from usx_common.levels import LEVELS
from usx_common.meshes import write_mesh
from usx_common.volumes import write_volume
from usx_phantom.plain_yaml import dump, numbers
from usx_phantom.probe_geometry import ProbeGeometry
from usx_phantom.scene import Scene
from usx_phantom.spine_chain import PostureDifference


def write_truth(scene: Scene, folder: Path, xray_to_cbct: np.ndarray) -> None:
    """The bones during the sweep, their label map, and the true transforms, to `folder`, which is made."""
    folder.mkdir()
    _write_bones(scene, folder)
    dump(folder / "transforms.yaml", {
        "cbct_to_world": numbers(scene.cbct_to_world), "xray_to_cbct": numbers(xray_to_cbct),
        "image_to_probe": numbers(ProbeGeometry().image_to_probe)})


def write_motion(imaged: Scene, folder: Path, motion: PostureDifference) -> None:
    """The bones at the time of X-ray and CBCT, and how each moved since the sweep, to `folder`/xray."""
    (folder / "xray").mkdir()
    _write_bones(imaged, folder / "xray")
    dump(folder / "xray" / "motion.yaml", {
        "sweep_to_xray": {level: numbers(motion.motions[level]) for level in LEVELS},
        "disc_turns_deg": {disc: round(turn, 3) for disc, turn in motion.disc_turns().items()},
        "note": motion.message or "every disc turned as wanted"})


def _write_bones(scene: Scene, folder: Path) -> None:
    for level, mesh in scene.meshes.items():
        write_mesh(folder / f"{level}.ply", mesh, comment=f"{level}, mm, frame cbct (LPS)")
    write_volume(folder / "labelmap.nrrd", scene.labelmap)
