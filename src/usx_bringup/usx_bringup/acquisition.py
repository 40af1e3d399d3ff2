"""What an acquisition folder holds: its bag's frames, its parts that may be absent, its truth for the report."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader, AnyReaderError

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, read_mesh

IMAGE_TOPIC = "/us/image_raw"
STAMP = slice(4, 12)  # CDR: 4 bytes of encapsulation, then header.stamp.sec and .nanosec


@dataclass(frozen=True)
class Recording:
    """The frames of a bag: their number, and the stamps of the first and the last in ns."""

    frames: int
    first_stamp: int
    last_stamp: int

    @property
    def duration_s(self) -> float:
        return (self.last_stamp - self.first_stamp) * 1e-9


@dataclass(frozen=True)
class Truth:
    """What the nodes never see: the true vertebrae (mm, frame ``cbct``) and ``cbct_to_world``."""

    meshes: dict[str, Mesh]
    cbct_to_world: NDArray[np.float64]


def read_recording(bag: Path) -> Recording:
    """Count the frames of a bag and read their stamps. Raises UsxError when the bag is no bag or holds no frame."""
    if not (bag / "metadata.yaml").is_file():
        raise UsxError(f"{bag} is no bag: it has no metadata.yaml")
    try:
        with AnyReader([bag]) as reader:
            connections = [c for c in reader.connections if c.topic == IMAGE_TOPIC]
            stamps = [_stamp(data) for _, _, data in reader.messages(connections)] if connections else []
    except (AnyReaderError, OSError, ValueError, KeyError) as error:
        raise UsxError(f"bag {bag} cannot be read: {error}") from error
    if not stamps:
        raise UsxError(f"bag {bag} holds no image on {IMAGE_TOPIC}")
    return Recording(len(stamps), min(stamps), max(stamps))


def _stamp(cdr: bytes | memoryview) -> int:
    data = bytes(cdr[:12])
    seconds, nanoseconds = struct.unpack("<iI" if data[1] & 1 else ">iI", data[STAMP])
    return seconds * 1_000_000_000 + nanoseconds


def read_truth(acquisition: Path) -> Truth | None:
    """The truth beside a simulated acquisition; None for a recorded one, which has none."""
    folder = acquisition / "truth"
    if not (folder / "transforms.yaml").is_file():
        return None
    numbers = yaml.safe_load((folder / "transforms.yaml").read_text())
    meshes = {level: read_mesh(folder / f"{level}.ply") for level in LEVELS if (folder / f"{level}.ply").is_file()}
    return Truth(meshes, transforms.parse_matrix(numbers["cbct_to_world"], "cbct_to_world"))
