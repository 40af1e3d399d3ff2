"""An acquisition folder written from a tracked sequence: rosbag2 (mcap), params.yaml, acquisition.yaml."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from usx_common.errors import UsxError
from usx_common.transforms import Matrix, nearest_rigid, to_quaternion
from usx_compounding.mask import MaskSettings, make_mask, run_corners, to_runs
from usx_compounding.region import Lattice
from usx_compounding.sequence import Sequence
from usx_compounding.sequence_poses import PlacedFrames, TransformNames, place_frames, stamp_nanoseconds

STORE = get_typestore(Stores.ROS2_JAZZY)
IMAGE, TF = "sensor_msgs/msg/Image", "tf2_msgs/msg/TFMessage"
NEVER = QosTime(2147483647, 4294967295)
STREAM = Qos(QosHistory.KEEP_LAST, 50, QosReliability.RELIABLE, QosDurability.VOLATILE, NEVER, NEVER,
             QosLiveliness.AUTOMATIC, NEVER, False)


@dataclass(frozen=True)
class RecordingSettings:
    """``image_to_probe``: (4, 4) pixels -> mm. ``delay`` (s): tracker lag, goes into params.yaml as pose_delay."""

    image_to_probe: Matrix
    mask: MaskSettings = field(default_factory=MaskSettings)
    names: TransformNames = field(default_factory=TransformNames)
    spacing: float = 0.5
    delay: float = 0.0


@dataclass(frozen=True)
class Written:
    """What a folder holds: ``frames`` images, ``poses`` transforms, ``invalid`` poses left out."""

    frames: int
    poses: int
    invalid: int


def write_acquisition(folder: Path, sequence: Sequence, settings: RecordingSettings, source: str,
                      progress: Callable[[int, int], None] = lambda done, total: None) -> Written:
    """Write ``folder``/{bag/, params.yaml, acquisition.yaml}; every good image, and a pose where the tracker
    vouched for it.

    A frame without a pose is kept: replaying it must show that it is rejected. ``source``: name for acquisition.yaml.
    Raises UsxError when the folder is in the way, the images are not 8-bit grey, or not a single pose is good.
    """
    Lattice(np.eye(4), settings.spacing)  # refuses a spacing that makes no sense
    placed = place_frames(sequence, settings.names)
    if not len(placed.numbers):
        raise UsxError(f"none of the {len(sequence)} frames has a good pose: {placed.rejected}")
    if sequence.images.dtype != np.uint8 or not sequence.images.size:
        raise UsxError(f"images of type {sequence.images.dtype}, shape {sequence.images.shape}: 8-bit grey is needed")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsxError(f"{folder} exists and is not empty: name another folder, or remove it")
    stamps = [stamp_nanoseconds(seconds) for seconds in sequence.timestamps()]
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        frames = _write_bag(partial / "bag", sequence, placed, stamps, progress)
        _dump(partial / "params.yaml", _parameters(sequence, placed, settings))
        written = Written(frames, len(placed.numbers), placed.rejected.get("pose_invalid", 0))
        _dump(partial / "acquisition.yaml", _description(written, sequence, settings, source))
        if folder.exists():
            folder.rmdir()
        partial.replace(folder)
    except OSError as error:
        raise UsxError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return written


def image_message(pixels: NDArray[np.uint8], nanoseconds: int, frame: str) -> bytes:
    """CDR of a mono8 sensor_msgs/Image of (rows, columns) pixels."""
    rows, columns = pixels.shape
    message = STORE.types[IMAGE](header=_header(nanoseconds, frame), height=rows, width=columns, encoding="mono8",
                                 is_bigendian=0, step=columns, data=np.ascontiguousarray(pixels).reshape(-1))
    return bytes(STORE.serialize_cdr(message, IMAGE))


def transform_message(child_to_parent: Matrix, parent: str, child: str, nanoseconds: int) -> bytes:
    """CDR of a tf2_msgs/TFMessage with one rigid (4, 4) transform, mm (metres in the message)."""
    types = STORE.types
    translation, rotation = to_quaternion(child_to_parent)
    vector = types["geometry_msgs/msg/Vector3"](*(float(v) * 1e-3 for v in translation))
    quaternion = types["geometry_msgs/msg/Quaternion"](*(float(v) for v in rotation))
    transform = types["geometry_msgs/msg/Transform"](translation=vector, rotation=quaternion)
    stamped = types["geometry_msgs/msg/TransformStamped"](header=_header(nanoseconds, parent), child_frame_id=child,
                                                          transform=transform)
    return bytes(STORE.serialize_cdr(types[TF](transforms=[stamped]), TF))


def _write_bag(folder: Path, sequence: Sequence, placed: PlacedFrames, stamps: list[int],
               progress: Callable[[int, int], None]) -> int:
    poses = dict(zip(placed.numbers.tolist(), placed.probe_to_world, strict=True))
    frames = 0
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        images = writer.add_connection("/us/image_raw", IMAGE, typestore=STORE, offered_qos_profiles=[STREAM])
        transforms = writer.add_connection("/tf", TF, typestore=STORE, offered_qos_profiles=[STREAM])
        for number in np.argsort(stamps, kind="stable").tolist():
            stamp = stamps[number]
            if number in poses:
                pose = nearest_rigid(poses[number])  # a TF can carry no other
                writer.write(transforms, stamp, transform_message(pose, "world", "us_probe", stamp))
            if sequence.image_ok(number):
                writer.write(images, stamp, image_message(sequence.images[number], stamp, "us_image"))
                frames += 1
            progress(number + 1, len(stamps))
    return frames


def _parameters(sequence: Sequence, placed: PlacedFrames, settings: RecordingSettings) -> dict[str, Any]:
    """What an operator would know of this recording: calibration, mask, and gates that fit its pace."""
    times = np.sort(sequence.timestamps()[placed.numbers])
    gap = float(np.diff(times).max(initial=0.05))
    image_to_world = placed.image_to_world(settings.image_to_probe)
    corners = run_corners(to_runs(make_mask(settings.mask, *sequence.images.shape[1:])))
    pixels = np.column_stack([corners, np.zeros(4), np.ones(4)])
    points = np.einsum("fij,pj->fpi", image_to_world, pixels)[..., :3].reshape(-1, 3)
    volume_to_world = np.eye(4)
    volume_to_world[:3, 3] = np.floor(points.min(axis=0) * 1000.0) / 1000.0
    values: dict[str, Any] = {
        "image_to_probe": [float(v) for v in settings.image_to_probe.reshape(-1)], "pose_source": "tf",
        "world_frame": "world", "probe_frame": "us_probe", "image_frame": "us_image",
        "volume_to_world": [round(float(v), 6) for v in volume_to_world.reshape(-1)],
        "spacing": settings.spacing, "pose_delay": settings.delay,
        # poses as rare as the frames: a longer gap may be bridged, but not one that misses two poses
        "pose_max_gap": round(max(0.05, 1.5 * gap), 3), "pose_staleness": round(max(0.5, 4.0 * gap), 3),
        "mask_kind": settings.mask.kind}
    if settings.mask.rectangle is not None:
        values["mask_rectangle"] = [int(v) for v in settings.mask.rectangle]
    if settings.mask.fan is not None:
        fan = settings.mask.fan
        values["mask_fan"] = [float(getattr(fan, name)) for name in fan.__dataclass_fields__]
    return {"/**": {"ros__parameters": values}}  # the only wildcard that rclpy applies


def _description(written: Written, sequence: Sequence, settings: RecordingSettings, source: str) -> dict[str, Any]:
    times = sequence.timestamps()
    return {"format_version": 1, "source": {"kind": "sequence", "file": source}, "frames": written.frames,
            "poses": written.poses, "invalid_poses": written.invalid, "stated_errors": {},
            "sweep": {"duration": round(float(np.ptp(times)), 6), "first_time": float(times.min()),
                      "probe_transform": settings.names.probe, "reference_transform": settings.names.reference}}


def _header(nanoseconds: int, frame: str) -> Any:
    time = STORE.types["builtin_interfaces/msg/Time"](sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
    return STORE.types["std_msgs/msg/Header"](stamp=time, frame_id=frame)


def _dump(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110))
