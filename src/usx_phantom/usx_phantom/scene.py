"""What the simulators look at: bones, their label map and the skin, all in patient coordinates.

Patient coordinates (frame `cbct`): DICOM LPS in millimetres, x = patient left, y = posterior, z = cranial.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from usx_common.meshes import Mesh
from usx_common.volumes import Volume


@dataclass(frozen=True)
class SkinSurface:
    """Skin of the back as a smooth height field y(x, z), and the trunk behind it.

    y = c0 + c1 s + c2 s^2 - lateral_curvature (x - x0)^2 with s = z - z0; all mm, frame `cbct`.
    """

    x0: float
    z0: float
    coefficients: tuple[float, float, float]
    lateral_curvature: float = 1.0 / 1200.0
    trunk_half_width: float = 165.0
    trunk_depth: float = 220.0

    def height(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """y (mm) of the skin above the points (x, z); any broadcastable shapes."""
        s = np.asarray(z, float) - self.z0
        c0, c1, c2 = self.coefficients
        return c0 + c1 * s + c2 * s**2 - self.lateral_curvature * (np.asarray(x, float) - self.x0) ** 2

    def slope(self, z: np.ndarray) -> np.ndarray:
        """dy/dz of the midline skin at `z` (dimensionless)."""
        s = np.asarray(z, float) - self.z0
        return self.coefficients[1] + 2.0 * self.coefficients[2] * s

    def shifted(self, shift: np.ndarray) -> SkinSurface:
        """The same back moved by `shift` (3,) mm."""
        c0, c1, c2 = self.coefficients
        return replace(self, x0=self.x0 + float(shift[0]), z0=self.z0 + float(shift[2]),
                       coefficients=(c0 + float(shift[1]), c1, c2))

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Which `points` (N, 3), mm, frame `cbct`, lie in the trunk: below the skin, within its width and depth."""
        points = np.asarray(points, float)
        depth = self.height(points[:, 0], points[:, 2]) - points[:, 1]
        x = (points[:, 0] - self.x0) / self.trunk_half_width
        y = (depth - self.trunk_depth / 2.0) / (self.trunk_depth / 2.0)
        return (depth >= 0.0) & (np.abs(x) ** 2.5 + np.abs(y) ** 6.0 <= 1.0)


@dataclass(frozen=True)
class Scene:
    """One patient on the table.

    `meshes`: level name ("L1".."L5") -> Mesh, mm, frame `cbct` (closed, outward normals).
    `labelmap`: uint8 Volume, labels 20..24 inside L1..L5 and 0 elsewhere, isotropic, LPS, direction identity.
    `skin`: the back's surface above the bones. `cbct_to_world`: (4, 4) rigid, mm.
    `intensities`: CT of the patient where there is one: Hounsfield units (int16), frame `cbct`, direction identity, mm.
    It holds all bones but seldom the whole trunk (scans are cropped): beyond its box simulators think soft tissue
    under the skin. Inside the box there is soft tissue wherever the scanner saw nothing or air behind the back.
    """

    meshes: dict[str, Mesh]
    labelmap: Volume
    skin: SkinSurface
    cbct_to_world: np.ndarray
    intensities: Volume | None = None
