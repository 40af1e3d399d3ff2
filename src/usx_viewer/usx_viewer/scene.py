"""The 3D scene in the browser: frames of the TF tree, and clouds, meshes and images hung into them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray

from usx_common.meshes import Mesh
from usx_common.transforms import to_quaternion

MM_PER_M = 1000.0
MAX_CLOUD_POINTS = 60_000  # what a browser with software rendering still turns smoothly
ROOT = "/world"


@dataclass(frozen=True)
class Pinhole:
    """Focal lengths and principal point in pixels of an image of (height, width) pixels."""

    fx: float
    fy: float
    cx: float
    cy: float


class Scene:
    """Objects by name, each hung into a frame; thread-safe. Units: mm in, metres in the browser.

    An object whose frame has no pose yet is kept but hidden, so that nothing is ever shown in a wrong place.
    """

    def __init__(self, server: viser.ViserServer) -> None:
        self._server = server
        self._lock = threading.RLock()
        self._frames: dict[str, Any] = {}
        self._objects: dict[str, Any] = {}
        self._frame_of: dict[str, str] = {}
        self._wanted: dict[str, bool] = {}
        self._posed: set[str] = set()
        server.scene.set_up_direction("+z")

    def set_pose(self, frame: str, frame_to_root: NDArray[np.float64]) -> None:
        """Place a frame: (4, 4) rigid, mm."""
        translation, quaternion = to_quaternion(frame_to_root)
        with self._lock:
            handle = self._frame(frame)
            handle.position = translation / MM_PER_M
            handle.wxyz = quaternion[[3, 0, 1, 2]]
            if frame not in self._posed:
                self._posed.add(frame)
                self._refresh_visibility()

    def set_cloud(self, name: str, frame: str, points_mm: NDArray, colours: NDArray, size_mm: float = 0.9) -> None:
        """Show a cloud (N, 3) with colours (N, 3); thinned evenly above MAX_CLOUD_POINTS; an empty one is removed."""
        step = max(1, -(-len(points_mm) // MAX_CLOUD_POINTS))
        points = (np.asarray(points_mm)[::step] / MM_PER_M).astype(np.float32)
        if len(points) == 0:
            self.remove(name)
            return
        self._place(name, frame, self._server.scene.add_point_cloud, points=points, colors=colours[::step],
                    point_size=size_mm / MM_PER_M, point_shape="circle", precision="float32")

    def set_mesh(self, name: str, frame: str, mesh: Mesh, colour: tuple[int, int, int], opacity: float) -> None:
        """Show a mesh in one colour; ``opacity`` 0 .. 1."""
        self._place(name, frame, self._server.scene.add_mesh_simple,
                    vertices=(mesh.vertices / MM_PER_M).astype(np.float32), faces=mesh.faces, color=colour,
                    opacity=None if opacity >= 1.0 else opacity, side="double")

    def set_image_plane(self, name: str, frame: str, pixels: NDArray[np.uint8], camera: Pinhole,
                        depth_mm: float) -> None:
        """Show an image as the plane z = depth of an optical frame, in its true size there."""
        height, width = pixels.shape[:2]
        metres = depth_mm / MM_PER_M
        centre = ((width / 2 - 0.5 - camera.cx) / camera.fx, (height / 2 - 0.5 - camera.cy) / camera.fy, 1.0)
        self._place(name, frame, self._server.scene.add_image, image=np.repeat(pixels[:, :, None], 3, axis=2),
                    render_width=width / camera.fx * metres, render_height=height / camera.fy * metres,
                    format="jpeg", position=np.array(centre) * metres)

    def set_label(self, name: str, frame: str, text: str, position_mm: NDArray) -> None:
        """Show a text at a point (3,)."""
        self._place(name, frame, self._server.scene.add_label, text=text, position=position_mm / MM_PER_M)

    def show(self, prefix: str, visible: bool) -> None:
        """Switch all objects whose name begins with ``prefix`` on or off, present and future."""
        with self._lock:
            self._wanted[prefix] = visible
            self._refresh_visibility()

    def show_frames(self, visible: bool) -> None:
        """Switch the axes of all frames."""
        with self._lock:
            for handle in self._frames.values():
                handle.show_axes = visible

    def remove(self, name: str) -> None:
        """Take an object away, if it is there."""
        with self._lock:
            handle = self._objects.pop(name, None)
            if handle is not None:
                handle.remove()

    def objects(self) -> list[str]:
        """Names of the objects that are there."""
        with self._lock:
            return sorted(self._objects)

    def _frame(self, frame: str) -> Any:
        if frame not in self._frames:
            self._frames[frame] = self._server.scene.add_frame(
                f"{ROOT}/{frame}", axes_length=0.03, axes_radius=0.0008, show_axes=False)
        return self._frames[frame]

    def _place(self, name: str, frame: str, add: Any, **arguments: Any) -> None:
        with self._lock:
            self._frame(frame)
            if self._frame_of.get(name, frame) != frame:
                self.remove(name)
            self._frame_of[name] = frame
            self._objects[name] = add(f"{ROOT}/{frame}/{name}", visible=self._visible(name), **arguments)

    def _visible(self, name: str) -> bool:
        wanted = [visible for prefix, visible in self._wanted.items() if name.startswith(prefix)]
        return all(wanted) and self._frame_of[name] in self._posed

    def _refresh_visibility(self) -> None:
        for name, handle in self._objects.items():
            handle.visible = self._visible(name)
