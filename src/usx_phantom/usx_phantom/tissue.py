"""Compiled kernels of the ultrasound model: what soft tissue scatters and absorbs along one scan line.

Tissue is layered by depth below the skin (skin, fat, muscle) or, where CT intensities are given, told apart by
Hounsfield units: fat about -100, muscle about 55, gas below -300. Fat inside a muscle makes it brighter (Reimers et
al., "Skeletal muscle sonography", J. Ultrasound Med. 12, 1993).
"""

from __future__ import annotations

import numba
import numpy as np

from usx_phantom.scatter import mix, pattern

CELL = (0.4, 0.4, 0.9)  # mm of tissue along x, y, z (z: a sweep runs along it, and the slice is thick)
COARSE_STEP = 2  # the texture changes over parts of a millimetre: it is evaluated at every second sample
NO_VALUE = -30000.0  # Hounsfield units where there is no CT
GAS = -300.0  # HU; below it sound does not pass
DECIBEL = np.log(10.0) / 20.0
# Brightness and absorption by HU, relative to muscle: fat, fatty muscle, muscle, ligament
HOUNSFIELD = np.array([-120.0, -60.0, -20.0, 20.0, 55.0, 110.0, 180.0])
ECHO_BY_HOUNSFIELD = np.array([1.0, 1.2, 1.9, 1.4, 1.0, 1.3, 1.7])
ABSORPTION_BY_HOUNSFIELD = np.array([0.8, 0.85, 1.0, 1.0, 1.0, 1.2, 1.4])


@numba.njit(cache=True, nogil=True)
def hounsfield(volume, start, along, r):  # type: ignore[no-untyped-def]
    """Trilinear value of `volume` (z, y, x) at the voxel index start + r * along; NO_VALUE outside."""
    x, y, z = start[0] + r * along[0], start[1] + r * along[1], start[2] + r * along[2]
    if x < 0.0 or y < 0.0 or z < 0.0:
        return NO_VALUE
    i, j, k = np.int64(x), np.int64(y), np.int64(z)
    if i + 1 >= volume.shape[2] or j + 1 >= volume.shape[1] or k + 1 >= volume.shape[0]:
        return NO_VALUE
    u, v, w = x - i, y - j, z - k
    near = (1 - v) * ((1 - u) * volume[k, j, i] + u * volume[k, j, i + 1]) \
        + v * ((1 - u) * volume[k, j + 1, i] + u * volume[k, j + 1, i + 1])
    far = (1 - v) * ((1 - u) * volume[k + 1, j, i] + u * volume[k + 1, j, i + 1]) \
        + v * ((1 - u) * volume[k + 1, j + 1, i] + u * volume[k + 1, j + 1, i + 1])
    return (1 - w) * near + w * far


@numba.njit(cache=True, nogil=True)
def gas_depth(volume, start, along, reach):  # type: ignore[no-untyped-def]
    """mm to the first gas inside the body along a line, inf for none. Air before the first tissue is outside."""
    touched = False
    r = 0.0
    while r < reach:
        value = hounsfield(volume, start, along, r)
        if value > GAS:
            touched = True
        elif touched and value != NO_VALUE:
            return r
        r += 1.0
    return np.inf


@numba.njit(cache=True, nogil=True)
def tissue_amplitude(lattice, point, depth, tissue, fat, value):  # type: ignore[no-untyped-def]
    """Scattering amplitude, and that of coherent echoes of thin sheets, at a patient `point` `depth` mm below the skin.

    `tissue` = (skin thickness, skin, fat,
    muscle, texture); `fat` the depth of the fascia here; `value` the HU here, NO_VALUE for the layers."""
    if depth < 0.0:
        return 0.0, 0.0  # gel
    x, y, z = point
    lobules = pattern(lattice, x / 7.0, y / 4.0, z / 9.0)
    if depth < tissue[0]:
        return tissue[1] * np.exp(0.4 * tissue[4] * lobules), 0.0
    level = 1.0
    muscle = 0.0 if depth < fat else 1.0
    if value > GAS:
        level = np.interp(value, HOUNSFIELD, ECHO_BY_HOUNSFIELD)
        muscle = min(max((value + 90.0) / 50.0, 0.0), 1.0)
    amplitude, coherent = 0.0, 0.0
    if muscle < 1.0:
        streaks = pattern(lattice, x / 9.0 + 11.0, y / 0.9, z / 9.0)
        amplitude += (1.0 - muscle) * tissue[2] * np.exp(tissue[4] * (0.7 * lobules + 1.1 * streaks))
    if muscle > 0.0:
        fibres = pattern(lattice, (x + 0.3 * y) / 3.6, y / 0.8 + 7.0, z / 16.0)
        sheet = pattern(lattice, x / 12.0 + 3.0, (y + 0.15 * x) / 3.0, z / 60.0)
        amplitude += muscle * tissue[3] * np.exp(tissue[4] * (0.9 * lobules + 1.0 * fibres))
        if abs(sheet) < 0.45:  # thin bright sheets between the bundles, along the muscle
            patch = max(0.6 + 0.9 * lobules, 0.0)
            coherent = muscle * tissue[3] * tissue[4] * 5.0 * np.exp(-(sheet / 0.14) ** 2) * patch
    return level * amplitude, level * coherent


@numba.njit(cache=True, nogil=True)
def absorption(value, depth, fat, law):  # type: ignore[no-untyped-def]
    """dB per mm, there and back. `law` = (fat, muscle) of them."""
    if depth < 0.0:
        return 0.0
    if value > GAS:
        return law[1] * np.interp(value, HOUNSFIELD, ABSORPTION_BY_HOUNSFIELD)
    return law[0] if depth < fat else law[1]


@numba.njit(cache=True, nogil=True)
def scatter_line(  # type: ignore[no-untyped-def]
        place, step, gap, last, volume, noise, tissue, fat, law, real, imaginary, loss):
    """Fill one line with its scatterers up to `last` mm and with `loss`, the amplitude that is left, to its end.

    `place` = (origin on the face, direction, the same two in voxels of `volume`); `noise` = (lattice, table);
    `step` mm per sample, `gap` mm of gel before the skin, `law` see `absorption`, `tissue` see `tissue_amplitude`.
    """
    origin, direction, start, along = place
    lattice, table = noise
    left, rate, ratio = 1.0, -1.0, 1.0
    before, now, slope = 0.0, 0.0, 0.0
    sheet_before, sheet_now, sheet_slope = 0.0, 0.0, 0.0
    for k in range(real.size):
        r = k * step
        if k % COARSE_STEP == 0:
            ahead = r + COARSE_STEP * step
            value = hounsfield(volume, start, along, ahead)
            before, sheet_before = now, sheet_now
            now, sheet_now = 0.0, 0.0
            if r <= last:
                there = (origin[0] + ahead * direction[0], origin[1] + ahead * direction[1],
                         origin[2] + ahead * direction[2])
                now, sheet_now = tissue_amplitude(lattice, there, ahead - gap, tissue, fat, value)
            slope = (now - before) / COARSE_STEP
            sheet_slope = (sheet_now - sheet_before) / COARSE_STEP
            alpha = absorption(value, ahead - gap, fat, law)
            if alpha != rate:
                rate, ratio = alpha, np.exp(-DECIBEL * alpha * step)
        left *= ratio
        loss[k] = left
        if r > last:
            real[k] = 0.0
            imaginary[k] = 0.0
            continue
        index = mix(np.int64(np.floor((origin[0] + r * direction[0]) / CELL[0])),
                    np.int64(np.floor((origin[1] + r * direction[1]) / CELL[1])),
                    np.int64(np.floor((origin[2] + r * direction[2]) / CELL[2])), 0)
        amplitude = np.float32((before + slope * (k % COARSE_STEP)) * left)
        coherent = np.float32((sheet_before + sheet_slope * (k % COARSE_STEP)) * left)
        real[k] = amplitude * table[index, 0] + coherent
        imaginary[k] = amplitude * table[index, 1]


@numba.njit(cache=True, nogil=True)
def boundary_echoes(volume, place, step, last, strength, loss, real, imaginary):  # type: ignore[no-untyped-def]
    """Echoes of boundaries between soft tissues in CT: the change of HU along the line, as the impedance's."""
    start, along = place[2], place[3]
    before = hounsfield(volume, start, along, 0.0)
    k = COARSE_STEP
    while k < real.size and k * step <= last:
        value = hounsfield(volume, start, along, k * step)
        if before > GAS and value > GAS:
            change = min(max(value, -120.0), 100.0) - min(max(before, -120.0), 100.0)
            real[k] += np.float32(strength * loss[k] * max(abs(change) - 8.0, 0.0) / 200.0)
        before = value
        k += COARSE_STEP
