"""Curvilinear B-mode frames of a scene: a scan-line model in polar space.

For every scan line the skin and the bone meshes are met by rays; scatterers of soft tissue (layered, or told apart by
CT intensities), echoes of fasciae and of bone (by incidence angle), the acoustic shadow and the reverberation between
bone and probe are laid along it; the polar field is filtered with the beam's point spread, gets depth gain and noise,
and is log compressed and scan converted. The model follows the convolution models of Bamber and Dickinson
("Ultrasonic B-scanning: a computer simulation", 1980) and Burger et al. ("Real-time GPU-based ultrasound simulation
using deformable mesh models", 2013), here with numba on the CPU; `ultrasound_torch` runs the same model on torch.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_common.transforms import apply, invert, is_rigid, rotate
from usx_phantom import scatter
from usx_phantom.beam_shape import axial_kernel, depth_curves, lateral_kernels
from usx_phantom.checks import BadSettings, check_whole
from usx_phantom.label_surfaces import label_surfaces
from usx_phantom.probe_geometry import ProbeGeometry
from usx_phantom.raycast import TriangleTree
from usx_phantom.scan_conversion import ScanConverter
from usx_phantom.ultrasound_lines import INTERFACES, LineNumbers, SeenLines, find_gas, lay_lines, meet_bone
from usx_phantom.ultrasound_settings import UltrasoundSettings

__all__ = ["BadPose", "ProbeGeometry", "UltrasoundSettings", "UltrasoundSimulator"]

LONGEST_GAP = 20.0  # mm of air searched for the skin
GAP_STEP = 0.25
HOUNSFIELD_RANGE = (-1000.0, 150.0)  # bone comes from the meshes: it must not leak into the tissue beside it
NOISE_WIDTH = 1.8  # mm, one standard deviation of the blur of CT intensities
MOST_VOXELS = 350_000_000
NO_VOLUME = np.empty((0, 0, 0), dtype=np.int16)


class BadPose(UsxError):
    """A probe pose that no frame can be made of."""


class Skin(Protocol):
    """What is asked of the skin: the height field y(x, z) in patient coordinates, mm."""

    def height(self, x: NDArray, z: NDArray) -> NDArray:
        """y (mm) of the skin above (x, z)."""


class UltrasoundScene(Protocol):
    """What is asked of a scene: closed bone meshes and the skin, mm, frame `cbct`. Two more are used where they are
    there: `labelmap`, a Volume with labels 20..24, where there are no meshes; `intensities`, a Volume of HU."""

    @property
    def meshes(self) -> dict[str, Mesh]:
        """Bones by level name."""

    @property
    def skin(self) -> Skin:
        """Surface of the back."""


class UltrasoundSimulator:
    """Makes frames of one scene with one probe. The same seed, pose and frame number give the same bytes.

    Where the scene has CT intensities they say what is fat, muscle and gas instead of the layers of the settings.
    Raises BadSurface when the scene has no bone, BadSettings for a bad seed or a CT that is too large or not finite.
    """

    def __init__(self, scene: UltrasoundScene, geometry: ProbeGeometry | None = None, seed: int = 0,
                 settings: UltrasoundSettings | None = None) -> None:
        self.geometry = geometry or ProbeGeometry()
        self.settings = settings or UltrasoundSettings()
        beam = self.settings.beam
        self.step = self.geometry.depth / (beam.samples - 1)
        self.converter = ScanConverter(self.geometry.mask_fan, (self.geometry.rows, self.geometry.columns),
                                       (beam.lines, beam.samples))
        self._skin = scene.skin
        self._tree = TriangleTree.build(list(_bones(scene).values()))
        self.volume, self._cbct_to_voxel = _intensities(scene)
        self._seed = check_whole("ultrasound seed", seed)
        self.table = scatter.gaussian_table(self._seed)
        self.lattice = scatter.texture_lattice(self._seed)
        self._origins, self._directions = self.geometry.line_rays(beam.lines)
        self.axial = axial_kernel(beam.axial_width / self.step)
        self.lateral = lateral_kernels(beam, self.geometry)
        self.curves = depth_curves(self.settings, self.step)
        self.numbers = LineNumbers.of(self.settings, self.step)

    def frame(self, probe_to_cbct: NDArray[np.float64], index: int = 0) -> NDArray[np.uint8]:
        """One frame (rows, columns) seen from a rigid (4, 4) pose, mm; `index` >= 0 seeds its electronic noise.

        Raises BadPose for a pose that is not rigid, BadSettings for an index that is no whole number >= 0.
        """
        grey = np.empty(self.converter.polar_shape, dtype=np.float32)
        scatter.compress(self.envelope(probe_to_cbct, index), self.white, self.settings.receiver.dynamic_range_db, grey)
        return self.converter.to_image(grey)

    @property
    def white(self) -> float:
        """Amplitude that is shown white."""
        receiver = self.settings.receiver
        return float(10.0 ** ((receiver.headroom_db - receiver.gain_db) / 20.0))

    def frames(self, poses: Iterable[NDArray[np.float64]], first_index: int = 0,
               threads: int = 0) -> Iterator[NDArray[np.uint8]]:
        """Frames of many poses in their order, made by `threads` threads (0 = one per core) a few ahead.

        The bytes do not depend on the number of threads. Raises as `frame` does.
        """
        threads = threads if threads > 0 else (os.cpu_count() or 1)
        with ThreadPoolExecutor(max_workers=threads) as pool:
            waiting: deque[Future[NDArray[np.uint8]]] = deque()
            for number, pose in enumerate(poses):
                waiting.append(pool.submit(self.frame, pose, first_index + number))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def envelope(self, probe_to_cbct: NDArray[np.float64], index: int = 0) -> NDArray[np.float32]:
        """Envelope (lines, samples) before log compression; amplitude 1 is muscle's speckle at the face.

        Sample k lies k * `step` mm from the face. Raises as `frame` does.
        """
        salt = self.noise_salt(index)
        real, imaginary = self.field(probe_to_cbct)
        spare = np.empty(real.shape, np.float32)
        for field in (real, imaginary):
            scatter.axial_filter(field, self.axial, spare)
            scatter.lateral_filter(spare, self.lateral, field)
        scatter.detect(real, imaginary, *self.curves, self.table, salt, spare)
        return spare

    def noise_salt(self, index: int) -> int:
        """What the electronic noise of frame `index` is drawn with. Raises BadSettings for no whole number >= 0."""
        return (self._seed << 31) + check_whole("frame index", index)

    def field(self, probe_to_cbct: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Echoes as they lie along the lines, before any filter: real and imaginary part (lines, samples)."""
        seen, numbers = self.look(probe_to_cbct), self.numbers
        real = np.empty(self.converter.polar_shape, np.float32)
        imaginary = np.empty_like(real)
        lay_lines((seen.hits, seen.amplitudes),
                  (seen.origins, seen.directions, seen.starts, seen.alongs, seen.gaps, self.volume),
                  numbers.depths, np.array(self.settings.beam.elevation_weights), numbers.surface,
                  (self.lattice, self.table, np.array(INTERFACES)), numbers.layers, real, imaginary)
        return real, imaginary

    def look(self, probe_to_cbct: NDArray[np.float64]) -> SeenLines:
        """Where the scan lines of a rigid (4, 4) pose run and what they meet. Raises BadPose."""
        origins, directions = self._rays(probe_to_cbct)
        bone, beam = self.settings.bone, self.settings.beam
        starts, alongs = apply(self._cbct_to_voxel, origins), rotate(self._cbct_to_voxel, directions)
        reach = (beam.samples - 1) * self.step
        gases = np.empty(beam.lines)
        find_gas(self.volume, starts, alongs, reach, gases)
        offsets, weights = np.array(beam.elevation_offsets), np.array(beam.elevation_weights)
        hits, amplitudes = np.empty((beam.lines, offsets.size)), np.empty((beam.lines, offsets.size))
        elevation = rotate(probe_to_cbct, np.array([0.0, 1.0, 0.0]))
        meet_bone((self._tree.boxes, self._tree.links, self._tree.corners, self._tree.normals),
                  (origins, directions, elevation, reach), (offsets, weights),
                  (bone.specular, bone.exponent, bone.diffuse, bone.gas), gases, hits, amplitudes)
        return SeenLines(origins, directions, starts, alongs, self._gaps(origins, directions), hits, amplitudes)

    def bone_depths(self, probe_to_cbct: NDArray[np.float64]) -> NDArray[np.float64]:
        """(lines,) distance from the face to the first bone on the axis of each scan line, mm; inf where none."""
        origins, directions = self._rays(probe_to_cbct)
        return self._tree.cast(origins, directions, self.geometry.depth).distance

    def _rays(self, probe_to_cbct: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        pose = np.asarray(probe_to_cbct, dtype=np.float64)
        if pose.shape != (4, 4) or not is_rigid(pose, 1e-5):
            raise BadPose(f"probe_to_cbct = {pose.tolist()}: must be a rigid 4x4 matrix in mm")
        return apply(pose, self._origins), rotate(pose, self._directions)

    def _gaps(self, origins: NDArray[np.float64], directions: NDArray[np.float64]) -> NDArray[np.float64]:
        """(lines,) mm from the face to the skin; 0 where the face is pressed into it, inf where none is near."""
        reach = np.arange(0.0, LONGEST_GAP, GAP_STEP)
        points = origins[:, None, :] + reach[None, :, None] * directions[:, None, :]
        inside = self._skin.height(points[..., 0], points[..., 2]) >= points[..., 1]
        return np.where(inside.any(axis=1), reach[inside.argmax(axis=1)], np.inf)


def _bones(scene: UltrasoundScene) -> dict[str, Mesh]:
    labelmap = getattr(scene, "labelmap", None)
    return scene.meshes if scene.meshes or labelmap is None else label_surfaces(labelmap)


def _intensities(scene: UltrasoundScene) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """HU (z, y, x) of the scene's CT (empty where there is none) and (4, 4) from mm to its voxels."""
    volume = getattr(scene, "intensities", None)
    if volume is None:
        return NO_VOLUME, np.eye(4)
    if volume.values.size > MOST_VOXELS:
        raise BadSettings(f"CT of {volume.grid.size} voxels: more than {MOST_VOXELS:,} of them take over 2 GB here; "
                          "crop it to the spine, or resample it to 1 mm")
    if not np.isfinite(volume.values).all():
        raise BadSettings("the CT has values that are not finite: no tissue can be told from them")
    values = np.clip(volume.values, HOUNSFIELD_RANGE[0], HOUNSFIELD_RANGE[1]).astype(np.float32)
    # A voxel's noise is no tissue: unfiltered, it would shine as a boundary everywhere.
    ndimage.gaussian_filter(values, NOISE_WIDTH / volume.grid.spacing[::-1], output=values)
    return np.ascontiguousarray(np.rint(values), dtype=np.int16), invert(volume.grid.index_to_world)
