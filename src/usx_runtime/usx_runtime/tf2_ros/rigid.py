"""Arithmetic of tf2's transforms on plain tuples: for one transform that is faster than arrays.

A `Rigid` is (translation (x, y, z), rotation quaternion (x, y, z, w)) and maps p to R p + t, metres."""

from __future__ import annotations

from math import acos, sin, sqrt

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
Rigid = tuple[Vector, Quaternion]

IDENTITY: Rigid = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def multiply(a: Quaternion, b: Quaternion) -> Quaternion:
    """The rotation b followed by the rotation a."""
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by + ay * bw + az * bx - ax * bz,
        aw * bz + az * bw + ax * by - ay * bx,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def rotate(q: Quaternion, v: Vector) -> Vector:
    """v turned by the unit quaternion q."""
    qx, qy, qz, qw = q
    x, y, z = v
    tx, ty, tz = 2 * (qy * z - qz * y), 2 * (qz * x - qx * z), 2 * (qx * y - qy * x)
    return (
        x + qw * tx + qy * tz - qz * ty,
        y + qw * ty + qz * tx - qx * tz,
        z + qw * tz + qx * ty - qy * tx,
    )


def compose(outer: Rigid, inner: Rigid) -> Rigid:
    """`inner` first, then `outer`."""
    (ox, oy, oz), rotation = outer
    x, y, z = rotate(rotation, inner[0])
    return (x + ox, y + oy, z + oz), multiply(rotation, inner[1])


def inverse(transform: Rigid) -> Rigid:
    (tx, ty, tz), (qx, qy, qz, qw) = transform
    back = (-qx, -qy, -qz, qw)
    return rotate(back, (-tx, -ty, -tz)), back


def normalized(q: Quaternion) -> Quaternion:
    x, y, z, w = q
    length = sqrt(x * x + y * y + z * z + w * w)
    return x / length, y / length, z / length, w / length


def interpolate(start: Rigid, end: Rigid, fraction: float) -> Rigid:
    """As tf2 does: translation linearly, rotation along the shorter great arc (slerp)."""
    (ax, ay, az), (ai, aj, ak, ar) = start
    (bx, by, bz), (bi, bj, bk, br) = end
    translation = (ax + (bx - ax) * fraction, ay + (by - ay) * fraction, az + (bz - az) * fraction)
    dot = ai * bi + aj * bj + ak * bk + ar * br
    angle = acos(min(1.0, abs(dot)))
    if angle < 1e-9:
        return translation, start[1]
    from_start = sin((1.0 - fraction) * angle) / sin(angle)
    from_end = sin(fraction * angle) / sin(angle) * (1.0 if dot >= 0 else -1.0)
    turned = (
        ai * from_start + bi * from_end,
        aj * from_start + bj * from_end,
        ak * from_start + bk * from_end,
        ar * from_start + br * from_end,
    )
    return translation, normalized(turned)
