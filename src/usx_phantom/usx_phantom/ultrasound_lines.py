"""Lays the scan lines of one frame, before any filter: scatterers, layers, bone echoes, shadow, reverberation."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from usx_phantom import scatter, tissue
from usx_phantom.raycast import cast_one
from usx_phantom.ultrasound_settings import UltrasoundSettings

# fasciae and septa: depth = first + second * fat thickness (mm), strength relative to the fascia, waviness in mm
INTERFACES = ((0.0, 0.0, 0.5, 0.0), (1.8, 0.0, 0.35, 0.2), (1.0, 0.5, 0.22, 1.2), (0.0, 1.0, 1.0, 0.9),
              (2.2, 1.0, 0.5, 0.9), (9.0, 1.0, 0.16, 3.0), (17.0, 1.0, 0.14, 4.0), (27.0, 1.0, 0.1, 5.0))
SAME_SURFACE = 4.0  # mm of depth between neighbouring elevational rays


@dataclass(frozen=True)
class SeenLines:
    """Scan lines of a frame: `origins`, `directions` (lines, 3) mm, frame `cbct`, and `starts`, `alongs`, the same in
    voxels of the CT; `gaps` (lines,) mm from the face to the skin; `hits` (lines, E) mm to bone or gas for each
    elevational ray, inf where none, and `amplitudes` (lines, E) of their echoes."""

    origins: NDArray[np.float64]
    directions: NDArray[np.float64]
    starts: NDArray[np.float64]
    alongs: NDArray[np.float64]
    gaps: NDArray[np.float64]
    hits: NDArray[np.float64]
    amplitudes: NDArray[np.float64]


@dataclass(frozen=True)
class LineNumbers:
    """Settings as the kernels take them: `depths` = (step, gel, fat thickness, fascia's echo); `surface` = (roughness,
    reverberation, specular, glow); `layers` = (tissue amplitudes and texture, absorption of fat and muscle, dB/mm)."""

    depths: tuple[float, float, float, float]
    surface: tuple[float, float, float, tuple[float, float, float, float]]
    layers: tuple[tuple[float, float, float, float, float], tuple[float, float]]

    @classmethod
    def of(cls, settings: UltrasoundSettings, step: float) -> LineNumbers:
        """The numbers of `settings` for samples that lie `step` mm apart."""
        tissues, bone = settings.tissue, settings.bone
        there_and_back = 2.0 * 0.1 * settings.beam.frequency  # dB / (cm MHz), one way -> dB / mm of depth
        return cls((step, tissues.gel, tissues.fat_thickness, tissues.interfaces),
                   (bone.roughness, bone.reverberation, bone.specular,
                    (bone.tail, bone.tail_length, bone.haze, bone.haze_length)),
                   ((tissues.skin_thickness, tissues.skin, tissues.fat, tissues.muscle, tissues.texture),
                    (there_and_back * tissues.fat_attenuation, there_and_back * tissues.attenuation)))


@numba.njit(cache=True, nogil=True)
def meet_bone(tree, rays, elevational, law, gases, hits, amplitudes):  # type: ignore[no-untyped-def]
    """Fill `hits` (lines, E) with depths mm (inf = none) and `amplitudes` (lines, E) with the echoes of bone.

    `tree` = (boxes, links, corners, normals); `rays` = (origins, directions, elevation axis, reach mm); `elevational`
    = (offsets mm, weights); `law` = (specular, exponent, diffuse, gas) amplitudes; `gases` (lines,) depth of gas.
    """
    boxes, links, corners, normals = tree
    origins, directions, elevation, reach = rays
    offsets, weights = elevational
    for j in range(hits.shape[0]):
        for e in range(offsets.size):
            start = origins[j] + offsets[e] * elevation
            hits[j, e], face, u, v = cast_one(boxes, links, corners, start, directions[j], min(reach, gases[j]))
            amplitudes[j, e] = 0.0
            if face >= 0:
                normal = (1 - u - v) * normals[face, 0:3] + u * normals[face, 3:6] + v * normals[face, 6:9]
                length = np.sqrt((normal * normal).sum())
                cosine = min(abs((normal * directions[j]).sum()) / max(length, 1e-12), 1.0)
                amplitudes[j, e] = weights[e] * (law[0] * cosine ** law[1] + law[2] * cosine)
            elif gases[j] < reach:
                hits[j, e] = gases[j]
                amplitudes[j, e] = weights[e] * law[3]


@numba.njit(cache=True, nogil=True)
def find_gas(volume, starts, alongs, reach, gases):  # type: ignore[no-untyped-def]
    """Fill `gases` (lines,) with the depth of the first gas, mm; inf where none or where there is no CT."""
    for j in range(gases.size):
        gases[j] = np.inf if volume.size == 0 else tissue.gas_depth(volume, starts[j], alongs[j], reach)


@numba.njit(cache=True, nogil=True)
def lay_lines(bone, rays, depths, weights, surface, random, layers, real, imaginary):  # type: ignore[no-untyped-def]
    """Fill `real`, `imaginary` (lines, samples). `bone` = (hits, amplitudes) of `meet_bone`; `rays` = (origins,
    directions, the same in voxels, gaps mm, HU volume); `depths` = (step, gel, fat thickness, fascia's echo);
    `surface` = (roughness, reverberation, specular, glow of `scatter.shade`); `random` = (lattice, table, interfaces);
    `layers` = (tissue amplitudes, absorption)."""
    hits, amplitudes = bone
    origins, directions, starts, alongs, gaps, volume = rays
    step, gel, fat_thickness, fascia = depths
    lattice, table, interfaces = random
    loss = np.empty(real.shape[1], np.float32)
    for j in range(real.shape[0]):
        gap = gaps[j]
        if gap > gel:  # no contact: nothing comes back but the ring-down
            real[j] = 0.0
            imaginary[j] = 0.0
            continue
        origin = origins[j]
        wave = scatter.pattern(lattice, origin[0] / 22.0, origin[1] / 60.0, origin[2] / 30.0)
        fat = fat_thickness * (1.0 + 0.08 * wave)
        place = (origin, directions[j], starts[j], alongs[j])
        last = min(hits[j].max(), real.shape[1] * step)
        tissue.scatter_line(place, step, gap, last, volume, (lattice, table), layers[0], fat, layers[1],
                            real[j], imaginary[j], loss)
        for i in range(interfaces.shape[0]):
            if volume.size > 0 and i > 1:
                break  # below the skin the boundaries come from CT
            wave = scatter.pattern(lattice, origin[0] / 18.0, 3.7 * i, origin[2] / 25.0)
            patch = scatter.pattern(lattice, origin[0] / 5.0 + 9.0, 5.3 * i, origin[2] / 9.0)
            depth = gap + interfaces[i, 0] + interfaces[i, 1] * fat + interfaces[i, 3] * wave
            if depth < 0.0 or depth / step >= loss.size - 1:
                continue
            amplitude = fascia * interfaces[i, 2] * np.exp(0.6 * patch) * loss[np.int64(depth / step)]
            scatter.add_echo(real[j], imaginary[j], depth / step, amplitude, 1.0, 0.0)
        if volume.size > 0:
            tissue.boundary_echoes(volume, place, step, last, fascia, loss, real[j], imaginary[j])
        _bone_echoes(hits[j], amplitudes[j], weights, step, surface, loss, table, j, real[j], imaginary[j])


@numba.njit(cache=True, nogil=True)
def _bone_echoes(  # type: ignore[no-untyped-def]
        hits, amplitudes, weights, step, surface, loss, table, line, real, imaginary):
    """Shadow, echo and reverberation of the bone of one line."""
    roughness, bounce, specular, glow = surface
    if np.isinf(hits.min()):
        return
    whole = 0.0
    for e in range(hits.size):
        if amplitudes[e] > 0.0:
            whole += amplitudes[e] * loss[np.int64(hits[e] / step)]
    scatter.shade(real, imaginary, step, hits, weights, whole, glow, table, line)
    for e in range(hits.size):
        if amplitudes[e] <= 0.0:
            continue
        left = loss[np.int64(hits[e] / step)]
        low, high = _slice_share(hits, e)
        parts = max(int((high - low) / (2.0 * step)), 1)
        for part in range(parts):  # a surface that slants through the slice smears its echo over its depths
            depth = hits[e] if parts == 1 else low + (part + 0.5) / parts * (high - low)
            index = scatter.mix(np.int64(hits[e] / 0.7), line // 3, e + 16 * part, 3)
            cosine = 1.0 - roughness + roughness * table[index, 0] if parts == 1 else table[index, 0]
            sine = roughness * table[index, 1] if parts == 1 else table[index, 1]
            scatter.add_echo(real, imaginary, depth / step, amplitudes[e] * left / np.sqrt(parts), cosine, sine)
        if specular > 0.0:  # the second reflection follows the law of incidence once more
            again = bounce * amplitudes[e] / (weights[e] * specular)
            scatter.reverberate(real, imaginary, step, hits[e], amplitudes[e], again, left, table, line // 4 + 64 * e)


@numba.njit(cache=True, nogil=True)
def _slice_share(hits, e):  # type: ignore[no-untyped-def]
    """Depths between which the surface of elevational ray `e` lies: half-way to its neighbours on the same surface."""
    low, high = hits[e], hits[e]
    for other in (e - 1, e + 1):
        if 0 <= other < hits.size and abs(hits[other] - hits[e]) < SAME_SURFACE:
            middle = 0.5 * (hits[other] + hits[e])
            low, high = min(low, middle), max(high, middle)
    return low, high
