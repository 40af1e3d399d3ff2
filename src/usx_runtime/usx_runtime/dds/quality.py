"""QoSProfile <-> the policies of Cyclone DDS."""

from __future__ import annotations

from typing import Any

from cyclonedds.qos import Policy, Qos

from usx_runtime.duration import Duration
from usx_runtime.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

_INFINITE = 2**63 - 1
_BLOCKING_NS = 100_000_000
_UNLIMITED = -1
_DEFAULT_DEPTH = 1  # what Cyclone keeps where nothing is said, as in rmw_cyclonedds


def effective(profile: QoSProfile, writer: bool) -> QoSProfile:
    """`profile` with every "system default" and "best available" replaced by what is used here."""
    depth = profile.depth if profile.depth > 0 else _DEFAULT_DEPTH
    reliable = profile.reliability == ReliabilityPolicy.RELIABLE or (
        writer and profile.reliability in (ReliabilityPolicy.SYSTEM_DEFAULT, ReliabilityPolicy.BEST_AVAILABLE))
    latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    return QoSProfile(
        history=HistoryPolicy.KEEP_ALL if profile.history == HistoryPolicy.KEEP_ALL else HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        liveliness=LivelinessPolicy.AUTOMATIC,
        lifespan=profile.lifespan, deadline=profile.deadline,
        liveliness_lease_duration=profile.liveliness_lease_duration,
    )


def to_dds(profile: QoSProfile, writer: bool, user_data: bytes = b"") -> Qos:
    """Policies of a writer or reader; raises NotImplementedError for what blocks or is not supported."""
    if profile.liveliness == LivelinessPolicy.MANUAL_BY_TOPIC:
        raise NotImplementedError("QoS liveliness MANUAL_BY_TOPIC is not supported by the embedded rclpy")
    if writer and profile.history == HistoryPolicy.KEEP_ALL:
        raise NotImplementedError("QoS history KEEP_ALL of a publisher is not supported by the embedded rclpy: one"
                                  " slow subscriber would stop the process. Use KEEP_LAST with a sufficient depth")
    used = effective(profile, writer)
    keep_all = used.history == HistoryPolicy.KEEP_ALL
    history = Policy.History.KeepAll if keep_all else Policy.History.KeepLast(used.depth)
    latched = used.durability == DurabilityPolicy.TRANSIENT_LOCAL
    policies: list[Any] = [
        history,
        Policy.Reliability.Reliable(_BLOCKING_NS) if used.reliability == ReliabilityPolicy.RELIABLE
        else Policy.Reliability.BestEffort,
        Policy.Durability.TransientLocal if latched else Policy.Durability.Volatile,
    ]
    if user_data:
        policies.append(Policy.Userdata(user_data))
    if used.deadline.nanoseconds:
        policies.append(Policy.Deadline(used.deadline.nanoseconds))
    if used.liveliness_lease_duration.nanoseconds:
        policies.append(Policy.Liveliness.Automatic(used.liveliness_lease_duration.nanoseconds))
    if writer:
        policies.append(Policy.WriterDataLifecycle(autodispose=False))
        if used.lifespan.nanoseconds:
            policies.append(Policy.Lifespan(used.lifespan.nanoseconds))
        if latched:
            policies.append(Policy.DurabilityService(0, history, _UNLIMITED, _UNLIMITED, _UNLIMITED))
    return Qos(*policies)


def from_dds(qos: Qos) -> QoSProfile:
    """The profile of a discovered endpoint; discovery carries no history, which is UNKNOWN then."""
    reliability, durability = qos[Policy.Reliability], qos[Policy.Durability]
    settings: dict[str, Any] = {
        "history": HistoryPolicy.UNKNOWN, "depth": 0,
        "reliability": ReliabilityPolicy.BEST_EFFORT if reliability in (None, Policy.Reliability.BestEffort)
        else ReliabilityPolicy.RELIABLE,
        "durability": DurabilityPolicy.VOLATILE if durability in (None, Policy.Durability.Volatile)
        else DurabilityPolicy.TRANSIENT_LOCAL,
        "liveliness": LivelinessPolicy.AUTOMATIC,
    }
    for name, policy, field in (("deadline", Policy.Deadline, "deadline"), ("lifespan", Policy.Lifespan, "lifespan")):
        found = qos[policy]
        nanoseconds = getattr(found, field) if found is not None else _INFINITE
        settings[name] = Duration(nanoseconds=min(nanoseconds, _INFINITE))
    lease = qos[Policy.Liveliness]
    if lease is not None:
        settings["liveliness_lease_duration"] = Duration(nanoseconds=min(lease.lease_duration, _INFINITE))
    return QoSProfile(**settings)
