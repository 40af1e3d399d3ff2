"""tf2_ros: transforms between coordinate frames over time."""

from usx_runtime.tf2_ros.broadcast import StaticTransformBroadcaster, TransformBroadcaster, TransformListener
from usx_runtime.tf2_ros.buffer import Buffer
from usx_runtime.tf2_ros.exceptions import (
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TimeoutException,
    TransformException,
)

__all__ = [
    "Buffer",
    "ConnectivityException",
    "ExtrapolationException",
    "InvalidArgumentException",
    "LookupException",
    "StaticTransformBroadcaster",
    "TimeoutException",
    "TransformBroadcaster",
    "TransformException",
    "TransformListener",
]
