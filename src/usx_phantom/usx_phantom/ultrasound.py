"""Curvilinear B-mode frames of a scene: a scan-line model in polar space.

For every scan line the skin and the bone meshes are met by rays; scatterers of layered soft tissue, echoes of fasciae
and of bone (by incidence angle), and the acoustic shadow are laid along it; the polar field is filtered with the
beam's point spread, gets depth gain and noise, and is log compressed and scan converted. The model follows the
convolution models of Bamber and Dickinson ("Ultrasonic B-scanning: a computer simulation", 1980) and Burger et al.
("Real-time GPU-based ultrasound simulation using deformable mesh models", 2013), here with numba on the CPU.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_common.transforms import apply, is_rigid, rotate
from usx_phantom import scatter
from usx_phantom.checks import check_whole
from usx_phantom.probe_geometry import ProbeGeometry
from usx_phantom.raycast import TriangleTree, cast_one
from usx_phantom.scan_conversion import ScanConverter
from usx_phantom.ultrasound_settings import BeamSettings, UltrasoundSettings

__all__ = ["BadPose", "ProbeGeometry", "UltrasoundSettings", "UltrasoundSimulator"]

LONGEST_GAP = 20.0  # mm of air searched for the skin
GAP_STEP = 0.25
# fasciae and septa: depth = first + second * fat thickness (mm), strength relative to the fascia, waviness in mm
INTERFACES = ((0.0, 0.0, 0.5, 0.0), (1.8, 0.0, 0.35, 0.2), (1.0, 0.5, 0.22, 1.2), (0.0, 1.0, 1.0, 0.9),
              (2.2, 1.0, 0.5, 0.9), (9.0, 1.0, 0.16, 3.0), (17.0, 1.0, 0.14, 4.0), (27.0, 1.0, 0.1, 5.0))


class BadPose(UsxError):
    """A probe pose that no frame can be made of."""


class Skin(Protocol):
    """What is asked of the skin: the height field y(x, z) in patient coordinates, mm."""

    def height(self, x: NDArray, z: NDArray) -> NDArray:
        """y (mm) of the skin above (x, z)."""


class UltrasoundScene(Protocol):
    """What is asked of a scene: closed bone meshes and the skin, mm, frame `cbct`."""

    @property
    def meshes(self) -> dict[str, Mesh]:
        """Bones by level name."""

    @property
    def skin(self) -> Skin:
        """Surface of the back."""


class UltrasoundSimulator:
    """Makes frames of one scene with one probe. The same seed, pose and frame number give the same bytes.

    Raises BadSurface when the scene has no bone, BadSettings for a bad seed.
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
        self._tree = TriangleTree.build(list(scene.meshes.values()))
        self._seed = check_whole("ultrasound seed", seed)
        self._table = scatter.gaussian_table(self._seed)
        self._lattice = scatter.texture_lattice(self._seed)
        self._origins, self._directions = self.geometry.line_rays(beam.lines)
        self._axial = axial_kernel(beam.axial_width / self.step)
        self._lateral = lateral_kernels(beam, self.geometry)
        self._curves = depth_curves(self.settings, self.step)

    def frame(self, probe_to_cbct: NDArray[np.float64], index: int = 0) -> NDArray[np.uint8]:
        """One frame (rows, columns) seen from a rigid (4, 4) pose, mm; `index` >= 0 seeds its electronic noise.

        Raises BadPose for a pose that is not rigid, BadSettings for an index that is no whole number >= 0.
        """
        grey = np.empty(self.converter.polar_shape, dtype=np.float32)
        white = 10.0 ** ((self.settings.headroom_db - self.settings.gain_db) / 20.0)
        scatter.compress(self.envelope(probe_to_cbct, index), white, self.settings.dynamic_range_db, grey)
        return self.converter.to_image(grey)

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
        origins, directions = self._rays(probe_to_cbct)
        index = check_whole("frame index", index)
        tissue, bone = self.settings.tissue, self.settings.bone
        shape = self.converter.polar_shape
        real, imaginary = np.empty(shape, np.float32), np.empty(shape, np.float32)
        elevation = rotate(probe_to_cbct, np.array([0.0, 1.0, 0.0]))
        _lay_lines(
            (self._tree.boxes, self._tree.links, self._tree.corners, self._tree.normals),
            (origins, directions, self._gaps(origins, directions), elevation),
            (self.step, tissue.gel, tissue.fat_thickness, tissue.interfaces),
            (np.array(self.settings.beam.elevation_offsets), np.array(self.settings.beam.elevation_weights)),
            (bone.specular, bone.exponent, bone.diffuse, bone.roughness, bone.transmission, bone.haze,
             bone.haze_length),
            (self._lattice, self._table, np.array(INTERFACES)),
            (tissue.skin_thickness, tissue.skin, tissue.fat, tissue.muscle, tissue.texture),
            real, imaginary)
        spare = np.empty(shape, np.float32)
        for field in (real, imaginary):
            scatter.axial_filter(field, self._axial, spare)
            scatter.lateral_filter(spare, self._lateral, field)
        salt = (self._seed << 31) + index
        scatter.detect(real, imaginary, *self._curves, self._table, salt, spare)
        return spare

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


def axial_kernel(width: float) -> NDArray[np.float32]:
    """Half of a symmetric Gaussian of `width` samples (one sd) with unit energy: [centre, +1, +2, ...]."""
    half = max(int(np.ceil(3.0 * width)), 1)
    taps = np.exp(-0.5 * (np.arange(half + 1) / width) ** 2)
    return (taps / np.sqrt(taps[0] ** 2 + 2.0 * (taps[1:] ** 2).sum())).astype(np.float32)


def lateral_kernels(beam: BeamSettings, geometry: ProbeGeometry) -> NDArray[np.float32]:
    """(T, samples): half of a Gaussian across the lines for each depth, unit energy; narrowest at the focus."""
    depth = np.linspace(0.0, geometry.depth, beam.samples)
    width = np.hypot(beam.lateral_width, beam.lateral_divergence * (depth - beam.focus_depth))
    line_gap = (geometry.radius + depth) * 2.0 * geometry.half_angle / (beam.lines - 1)
    sigma = width / line_gap
    half = int(np.ceil(2.5 * sigma.max()))
    taps = np.exp(-0.5 * (np.arange(half + 1)[:, None] / sigma) ** 2)
    return np.ascontiguousarray(taps / np.sqrt(taps[0] ** 2 + 2.0 * (taps[1:] ** 2).sum(axis=0)), dtype=np.float32)


def depth_curves(settings: UltrasoundSettings, step: float) -> tuple[NDArray, NDArray, NDArray]:
    """Along a line (samples,): what is left of the signal, the ring-down of the face, the electronic noise."""
    tissue = settings.tissue
    depth = np.arange(settings.beam.samples) * step
    gain = 10.0 ** (-tissue.attenuation * depth / 20.0)
    ring = tissue.skin * 8.0 * np.exp(-depth / 0.9) * (1.0 + 0.4 * np.cos(2.0 * np.pi * depth / 1.1))
    noise = tissue.noise * 10.0 ** (tissue.noise_rise * depth / 20.0)
    return gain.astype(np.float32), ring.astype(np.float32), noise.astype(np.float32)


@numba.njit(cache=True, nogil=True)
def _bone(tree, origin, direction, elevation, rays, reach, law, hits, amplitudes):  # type: ignore[no-untyped-def]
    """Depths and echo amplitudes of the elevational rays of one line; returns the whole echo."""
    boxes, links, corners, normals = tree
    offsets, weights = rays
    whole = 0.0
    for e in range(offsets.size):
        start = origin + offsets[e] * elevation
        hits[e], face, u, v = cast_one(boxes, links, corners, start, direction, reach)
        amplitudes[e] = 0.0
        if face < 0:
            continue
        normal = (1 - u - v) * normals[face, 0:3] + u * normals[face, 3:6] + v * normals[face, 6:9]
        length = np.sqrt((normal * normal).sum())
        cosine = min(abs((normal * direction).sum()) / max(length, 1e-12), 1.0)
        amplitudes[e] = weights[e] * (law[0] * cosine ** law[1] + law[2] * cosine)
        whole += amplitudes[e]
    return whole


@numba.njit(cache=True, nogil=True)
def _lay_lines(tree, rays, depths, elevational, law, random, tissue, real, imaginary):  # type: ignore[no-untyped-def]
    """Scatterers, interfaces, shadow and bone echoes of every line, before any filter."""
    origins, directions, gaps, elevation = rays
    step, gel, fat_thickness, fascia = depths
    offsets, weights = elevational
    lattice, table, interfaces = random
    hits, amplitudes = np.empty(offsets.size), np.empty(offsets.size)
    reach = (real.shape[1] - 1) * step
    for j in range(real.shape[0]):
        gap = gaps[j]
        if gap > gel:  # no contact: nothing comes back but the ring-down
            real[j] = 0.0
            imaginary[j] = 0.0
            continue
        origin, direction = origins[j], directions[j]
        wave = scatter.pattern(lattice, origin[0] / 22.0, origin[1] / 60.0, origin[2] / 30.0)
        fat = fat_thickness * (1.0 + 0.08 * wave)
        scatter.scatter_line(origin, direction, step, gap, lattice, table, tissue, fat, real[j], imaginary[j])
        for i in range(interfaces.shape[0]):
            wave = scatter.pattern(lattice, origin[0] / 18.0, 3.7 * i, origin[2] / 25.0)
            patch = scatter.pattern(lattice, origin[0] / 5.0 + 9.0, 5.3 * i, origin[2] / 9.0)
            depth = gap + interfaces[i, 0] + interfaces[i, 1] * fat + interfaces[i, 3] * wave
            amplitude = fascia * interfaces[i, 2] * np.exp(0.6 * patch)
            scatter.add_echo(real[j], imaginary[j], depth / step, amplitude, 1.0, 0.0)
        echo = _bone(tree, origin, direction, elevation, elevational, reach, law, hits, amplitudes)
        scatter.shade(real[j], imaginary[j], step, hits, weights, echo, law[4], law[5], law[6], table, j)
        for e in range(offsets.size):
            if amplitudes[e] <= 0.0:
                continue
            index = scatter.mix(np.int64(hits[e] / 0.7), j // 3, e, 3)
            cosine = 1.0 - law[3] + law[3] * table[index, 0]
            sine = law[3] * table[index, 1]
            scatter.add_echo(real[j], imaginary[j], hits[e] / step, amplitudes[e], cosine, sine)
