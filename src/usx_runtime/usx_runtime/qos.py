"""Quality of service: the profile of rclpy.qos with its policies and named profiles."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any

from usx_runtime.duration import Duration


class InvalidQoSProfileException(Exception):
    """Raised when a profile contradicts itself."""

    def __init__(self, *args: Any) -> None:
        super().__init__("Invalid QoSProfile", *args)


class HistoryPolicy(IntEnum):
    SYSTEM_DEFAULT = 0
    KEEP_LAST = 1
    KEEP_ALL = 2
    UNKNOWN = 3


class ReliabilityPolicy(IntEnum):
    SYSTEM_DEFAULT = 0
    RELIABLE = 1
    BEST_EFFORT = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class DurabilityPolicy(IntEnum):
    SYSTEM_DEFAULT = 0
    TRANSIENT_LOCAL = 1
    VOLATILE = 2
    UNKNOWN = 3
    BEST_AVAILABLE = 4


class LivelinessPolicy(IntEnum):
    SYSTEM_DEFAULT = 0
    AUTOMATIC = 1
    MANUAL_BY_TOPIC = 3
    UNKNOWN = 4
    BEST_AVAILABLE = 5


QoSHistoryPolicy = HistoryPolicy
QoSReliabilityPolicy = ReliabilityPolicy
QoSDurabilityPolicy = DurabilityPolicy
QoSLivelinessPolicy = LivelinessPolicy

_POLICIES = {
    "history": (HistoryPolicy, HistoryPolicy.SYSTEM_DEFAULT),
    "reliability": (ReliabilityPolicy, ReliabilityPolicy.RELIABLE),
    "durability": (DurabilityPolicy, DurabilityPolicy.VOLATILE),
    "liveliness": (LivelinessPolicy, LivelinessPolicy.SYSTEM_DEFAULT),
}
_DURATIONS = ("lifespan", "deadline", "liveliness_lease_duration")


class QoSProfile:
    """Quality of service of a publisher or a subscription; history or depth must be given, as in rclpy."""

    __slots__ = ("avoid_ros_namespace_conventions", "deadline", "depth", "durability", "history", "lifespan",
                 "liveliness", "liveliness_lease_duration", "reliability")
    history: HistoryPolicy
    depth: int
    reliability: ReliabilityPolicy
    durability: DurabilityPolicy
    liveliness: LivelinessPolicy
    lifespan: Duration
    deadline: Duration
    liveliness_lease_duration: Duration

    def __init__(self, **settings: Any) -> None:
        unknown = set(settings) - set(self.__slots__)
        assert not unknown, f"Invalid arguments passed to constructor: {sorted(unknown)}"
        if "history" not in settings:
            if "depth" not in settings:
                raise InvalidQoSProfileException("History and/or depth settings are required.")
            settings["history"] = HistoryPolicy.KEEP_LAST
        if settings["history"] == HistoryPolicy.KEEP_LAST and "depth" not in settings:
            raise InvalidQoSProfileException("History set to KEEP_LAST without a depth setting.")
        for name, (kind, default) in _POLICIES.items():
            setattr(self, name, kind(settings.get(name, default)))
        for name in _DURATIONS:
            value = settings.get(name, Duration())
            assert isinstance(value, Duration), f"{name} must be a rclpy.duration.Duration"
            setattr(self, name, value)
        depth = settings.get("depth", 0)
        assert isinstance(depth, int) and depth >= 0, f"depth = {depth!r}: must be an integer >= 0"
        self.depth = depth
        self.avoid_ros_namespace_conventions = bool(settings.get("avoid_ros_namespace_conventions", False))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QoSProfile) and all(
            getattr(self, slot) == getattr(other, slot) for slot in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"QoSProfile({', '.join(f'{slot}={getattr(self, slot)}' for slot in self.__slots__)})"


_LAST = HistoryPolicy.KEEP_LAST
qos_profile_unknown = QoSProfile(
    history=HistoryPolicy.UNKNOWN, reliability=ReliabilityPolicy.UNKNOWN, durability=DurabilityPolicy.UNKNOWN,
    liveliness=LivelinessPolicy.UNKNOWN)
qos_profile_default = QoSProfile(history=_LAST, depth=10)
qos_profile_system_default = QoSProfile(
    history=HistoryPolicy.SYSTEM_DEFAULT, reliability=ReliabilityPolicy.SYSTEM_DEFAULT,
    durability=DurabilityPolicy.SYSTEM_DEFAULT)
qos_profile_sensor_data = QoSProfile(history=_LAST, depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
qos_profile_services_default = QoSProfile(history=_LAST, depth=10)
qos_profile_parameters = QoSProfile(history=_LAST, depth=1000)
qos_profile_parameter_events = QoSProfile(history=_LAST, depth=1000)
qos_profile_best_available = QoSProfile(
    history=_LAST, depth=10, reliability=ReliabilityPolicy.BEST_AVAILABLE,
    durability=DurabilityPolicy.BEST_AVAILABLE, liveliness=LivelinessPolicy.BEST_AVAILABLE)


class QoSPresetProfiles(Enum):
    """The named profiles."""

    UNKNOWN = qos_profile_unknown
    DEFAULT = qos_profile_default
    SYSTEM_DEFAULT = qos_profile_system_default
    SENSOR_DATA = qos_profile_sensor_data
    SERVICES_DEFAULT = qos_profile_services_default
    PARAMETERS = qos_profile_parameters
    PARAMETER_EVENTS = qos_profile_parameter_events
    BEST_AVAILABLE = qos_profile_best_available


class QoSCompatibility(IntEnum):
    OK = 0
    WARNING = 1
    ERROR = 2


def qos_check_compatible(publisher: QoSProfile, subscription: QoSProfile) -> tuple[QoSCompatibility, str]:
    """Whether a subscription's request is met by a publisher's offer, and why not."""
    reasons = []
    if (publisher.reliability, subscription.reliability) == (
            ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE):
        reasons.append("ERROR: Best effort publisher and reliable subscription;")
    if (publisher.durability, subscription.durability) == (
            DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL):
        reasons.append("ERROR: Volatile publisher and transient local subscription;")
    return (QoSCompatibility.ERROR if reasons else QoSCompatibility.OK), "".join(reasons)
