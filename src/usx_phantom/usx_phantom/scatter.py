"""Compiled kernels of the ultrasound model: random numbers, echoes, shadow, point spread and log compression.

The polar image is a complex baseband field, kept as two float32 arrays (lines, samples). Scatterers are circular
complex Gaussian numbers tied to small cells of tissue by a hash of the cell's place, so that the speckle belongs to
the patient: the same pose sees the same speckle, a neighbouring pose nearly the same. Any linear filter of them stays
Gaussian, hence the envelope is Rayleigh distributed (fully developed speckle, mean / sd = 1.91; Wagner et al.,
"Statistics of speckle in ultrasound B-scans", 1983).
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

TABLE_BITS = 14
TEXTURE_SIZE = 32


def gaussian_table(seed: int) -> NDArray[np.float32]:
    """(2^14, 2) float32: complex Gaussian numbers of unit mean power."""
    random = np.random.default_rng([seed, 1])
    table = random.normal(scale=np.sqrt(0.5), size=(1 << TABLE_BITS, 2))
    return np.ascontiguousarray(table / np.sqrt((table**2).sum(axis=1).mean()), dtype=np.float32)


def texture_lattice(seed: int) -> NDArray[np.float32]:
    """(32, 32, 32) float32 periodic lattice of normal numbers; interpolated it is a random pattern of variance ~1."""
    values = np.random.default_rng([seed, 2]).normal(size=(TEXTURE_SIZE,) * 3)
    return np.ascontiguousarray(values * 1.9, dtype=np.float32)  # trilinear weights shrink the variance by (2/3)^3


@numba.njit(cache=True, nogil=True)
def mix(a, b, c, salt):  # type: ignore[no-untyped-def]
    """A well mixed table index of three whole numbers (splitmix64's finaliser)."""
    h = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15)
    h ^= np.uint64(b) * np.uint64(0xC2B2AE3D27D4EB4F)
    h ^= np.uint64(c) * np.uint64(0x165667B19E3779F9)
    h ^= np.uint64(salt)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((h ^ (h >> np.uint64(31))) & np.uint64((1 << TABLE_BITS) - 1))


@numba.njit(cache=True, nogil=True)
def pattern(lattice, x, y, z):  # type: ignore[no-untyped-def]
    """Trilinear value of the periodic lattice at (x, y, z) in lattice steps."""
    last = TEXTURE_SIZE - 1  # a power of two less one: masks are quicker than remainders
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    u, v, w = x - fx, y - fy, z - fz
    i, j, k = np.int64(fx) & last, np.int64(fy) & last, np.int64(fz) & last
    i1, j1, k1 = (i + 1) & last, (j + 1) & last, (k + 1) & last
    near = (1 - v) * ((1 - u) * lattice[k, j, i] + u * lattice[k, j, i1]) \
        + v * ((1 - u) * lattice[k, j1, i] + u * lattice[k, j1, i1])
    far = (1 - v) * ((1 - u) * lattice[k1, j, i] + u * lattice[k1, j, i1]) \
        + v * ((1 - u) * lattice[k1, j1, i] + u * lattice[k1, j1, i1])
    return (1 - w) * near + w * far


@numba.njit(cache=True, nogil=True)
def add_echo(real, imaginary, position, amplitude, cosine, sine):  # type: ignore[no-untyped-def]
    """Add a point echo at a fractional sample of one line, shared between its two neighbours."""
    k = np.int64(np.floor(position))
    if k < 0 or k + 1 >= real.size:
        return
    f = position - k
    real[k] += np.float32(amplitude * (1 - f) * cosine)
    real[k + 1] += np.float32(amplitude * f * cosine)
    imaginary[k] += np.float32(amplitude * (1 - f) * sine)
    imaginary[k + 1] += np.float32(amplitude * f * sine)


@numba.njit(cache=True, nogil=True)
def shade(  # type: ignore[no-untyped-def]
        real, imaginary, step, hits, weights, echo, glow, table, salt):
    """Shadow behind the bone of one line. `hits` (E,) depths mm of the elevational rays (inf = none), `weights` their
    shares. `glow` = (tail, its length mm, haze, its length mm): what still comes from behind the surface, in shares of
    the line's bone `echo`: the tail of the pulse and of the cortex, and a haze of multiple echoes."""
    tail, tail_length, haze, haze_length = glow
    first = np.int64(min(hits.min() / step, real.size))
    for k in range(first, real.size):
        r = k * step
        open_share, depth_behind = 0.0, 0.0
        for e in range(hits.size):
            if r <= hits[e]:
                open_share += weights[e]
            else:
                depth_behind += weights[e] * (r - hits[e])
        if open_share >= 1.0:
            continue
        index = mix(k, salt, 77, 5)
        rest = tail * np.exp(-depth_behind / tail_length) + haze * np.exp(-depth_behind / haze_length)
        rest *= (1.0 - open_share) * echo
        real[k] = np.float32(real[k] * open_share + rest * table[index, 0])
        imaginary[k] = np.float32(imaginary[k] * open_share + rest * table[index, 1])


@numba.njit(cache=True, nogil=True)
def reverberate(real, imaginary, step, depth, echo, bounce, left, table, salt):  # type: ignore[no-untyped-def]
    """Echoes that went n = 2, 3, ... times between the face and the bone at `depth` mm: they appear at n times the
    depth, each `bounce` times the one before, `left` of the amplitude after one way through the tissue. The curved
    face and the rough bone spread them out, the more the later."""
    strength, n = echo * left, 1
    while (n + 1) * depth < (real.size - 1) * step and strength > 1e-3:
        n += 1
        strength *= bounce * left
        for part in range(6):
            index = mix(n, salt, part, 13)
            place = n * depth + 1.6 * (n - 1) * table[index, 0]
            turn = mix(index, salt, part, 17)
            add_echo(real, imaginary, place / step, 0.5 * strength, table[turn, 0], table[turn, 1])


@numba.njit(cache=True, nogil=True)
def axial_filter(field, kernel, result):  # type: ignore[no-untyped-def]
    """Symmetric filter along the samples; the ends see zeros."""
    lines, samples = field.shape
    half = kernel.size - 1
    for j in range(lines):
        for k in range(samples):
            result[j, k] = kernel[0] * field[j, k]
        for t in range(1, half + 1):
            w = kernel[t]
            for k in range(samples - t):
                result[j, k] += w * field[j, k + t]
                result[j, k + t] += w * field[j, k]


@numba.njit(cache=True, nogil=True)
def lateral_filter(field, kernels, result):  # type: ignore[no-untyped-def]
    """Symmetric filter across the lines with a kernel per depth, `kernels` (T, samples); edges repeat a line."""
    lines, samples = field.shape
    for j in range(lines):
        for k in range(samples):
            result[j, k] = kernels[0, k] * field[j, k]
        for t in range(1, kernels.shape[0]):
            low, high = max(j - t, 0), min(j + t, lines - 1)
            for k in range(samples):
                result[j, k] += kernels[t, k] * (field[low, k] + field[high, k])


@numba.njit(cache=True, nogil=True)
def detect(real, imaginary, gain, ring, noise, table, salt, envelope):  # type: ignore[no-untyped-def]
    """Envelope of the filtered field times depth `gain`, plus the face's ring-down `ring` and electronic `noise`
    (each (samples,))."""
    lines, samples = real.shape
    for j in range(lines):
        for k in range(samples):
            index = mix(j, k, salt, 9)
            a = real[j, k] * gain[k] + ring[k] + noise[k] * table[index, 0]
            b = imaginary[j, k] * gain[k] + noise[k] * table[index, 1]
            envelope[j, k] = np.sqrt(a * a + b * b)


@numba.njit(cache=True, nogil=True)
def compress(envelope, white, dynamic_range_db, grey):  # type: ignore[no-untyped-def]
    """Grey values 0..255 of an envelope: `white` amplitude is 255, `dynamic_range_db` below it is 0."""
    scale = 255.0 / dynamic_range_db
    for j in range(envelope.shape[0]):
        for k in range(envelope.shape[1]):
            level = 20.0 * np.log10(max(envelope[j, k] / white, 1e-9))
            grey[j, k] = np.float32(min(max(255.0 + scale * level, 0.0), 255.0))
