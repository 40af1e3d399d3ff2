"""What is shown of each topic, and where it hangs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from usx_common.levels import LEVEL_NAMES, LEVELS
from usx_common.meshes import Mesh
from usx_viewer import colours
from usx_viewer.panel import Panel, Status
from usx_viewer.scene import Pinhole, Scene

FRAMES = ("us_volume", "us_probe", "us_image", "spine", "cbct", "xray", *(f"vertebra_{level}" for level in LEVELS))
MM_PER_M = 1000.0
XRAY_SIDE = 768  # pixels; a radiograph of 3,000 would only slow the browser down


class View:
    """Turns arrays into objects of the scene; knows no ROS."""

    def __init__(self, scene: Scene, panel: Panel, values: dict[str, Any]) -> None:
        self._scene, self._panel, self._values = scene, panel, values
        self._camera: Pinhole | None = None
        self._xray: tuple[str, NDArray[np.uint8], int] | None = None
        self._depth_mm: float | None = None
        self._slice_shown = 0.0

    def set_pose(self, frame: str, frame_to_root: NDArray[np.float64]) -> None:
        """Place a frame: (4, 4), mm."""
        self._scene.set_pose(frame, frame_to_root)
        if frame == "spine":
            self._panel.set_patient(frame_to_root)

    def show_cloud(self, topic: str, frame: str, points_mm: NDArray, fields: dict[str, NDArray]) -> None:
        """Show a cloud (N, 3) with its fields; points that are not finite are left out."""
        keep = np.isfinite(points_mm).all(axis=1)
        points = points_mm[keep]
        values = {name: column[keep] for name, column in fields.items()}
        size = self._values["point_size"]
        if topic == "us/bone":
            self._scene.set_cloud("bone", frame, points, colours.uniform(colours.BONE_COLOUR, len(points)), size)
        elif topic == "us/slice" and time.monotonic() - self._slice_shown > self._values["slice_period"]:
            self._slice_shown = time.monotonic()
            self._scene.set_cloud("slice", frame, points, colours.of_intensity(values["intensity"]), size)
        elif topic == "cbct/bone":
            self._scene.set_cloud("cbct", frame, points, colours.uniform(colours.CBCT_COLOUR, len(points)),
                                  0.5 * size)
        elif topic == "xray/bodies":
            self._show_bodies(frame, points, values["label"], size)
        elif topic == "spine/partial":
            tints = colours.of_partial(values["label"], values["source"])
            self._scene.set_cloud("partial", frame, points, tints, size)
        elif topic == "spine/completed":
            self._show_completed_points(frame, points, values, size)

    def _show_bodies(self, frame: str, points: NDArray, labels: NDArray, size: float) -> None:
        self._scene.set_cloud("xray/bodies", frame, points, colours.of_labels(labels), size)
        if len(points):
            self._depth_mm = float(np.median(points[:, 2]))
            self._draw_xray()

    def _show_completed_points(self, frame: str, points: NDArray, values: dict[str, NDArray], size: float) -> None:
        sigma_mm = values["sigma"] * MM_PER_M
        self._scene.set_cloud("sigma", frame, points, colours.of_uncertainty(sigma_mm), 1.4 * size)
        for label, level in LEVEL_NAMES.items():
            mine = np.round(values["label"]) == label
            if mine.any():
                text = f"{level}  ±{np.median(sigma_mm[mine]):.1f} mm"
                self._scene.set_label(f"completed/{level}/label", frame, text, points[mine].mean(axis=0))
            else:
                self._scene.remove(f"completed/{level}/label")

    def show_completed(self, frame: str, name: str, corners_m: Sequence[tuple[float, float, float]]) -> None:
        """Show a completed vertebra from its triangles (3F, 3), m; ``name`` holds the level's name or label."""
        level = next((level for label, level in LEVEL_NAMES.items() if level in name or str(label) in name), None)
        if level is None or not corners_m:
            return
        corners = np.array(corners_m) * MM_PER_M
        vertices, index = np.unique(np.round(corners, 3), axis=0, return_inverse=True)
        mesh = Mesh(vertices, index.reshape(-1, 3).astype(np.int32))
        self._scene.set_mesh(f"completed/{level}/mesh", frame, mesh, colours.LEVEL_COLOURS[level],
                             self._values["opacity"])

    def clear_completed(self) -> None:
        """Take all completed vertebrae away."""
        for name in self._scene.objects():
            if name.startswith("completed/"):
                self._scene.remove(name)

    def show_xray(self, frame: str, pixels: NDArray) -> None:
        """Show the radiograph (H, W) as soon as its camera and depth are known."""
        step = max(1, -(-max(pixels.shape) // XRAY_SIDE))
        small = pixels[::step, ::step].astype(np.float32)
        low, high = np.percentile(small, [0.5, 99.5])
        grey = np.clip((small - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
        self._xray = frame, grey, step
        self._draw_xray()

    def set_camera(self, k: Sequence[float]) -> None:
        """The radiograph's pinhole: nine numbers, row-major."""
        self._camera = Pinhole(float(k[0]), float(k[4]), float(k[2]), float(k[5]))
        self._draw_xray()

    def _draw_xray(self) -> None:
        if self._xray is None or self._camera is None or self._depth_mm is None:
            return
        frame, grey, step = self._xray
        c = self._camera
        small = Pinhole(c.fx / step, c.fy / step, (c.cx - (step - 1) / 2) / step, (c.cy - (step - 1) / 2) / step)
        self._scene.set_image_plane("xray/image", frame, grey, small, self._depth_mm)

    def mark_silent(self) -> None:
        """Grey out the nodes that are no longer heard."""
        self._panel.mark_silent(time.monotonic())

    def show_state(self, node: str, status: Status) -> None:
        """Show what a node says of itself."""
        self._panel.set_state(node, status)
