"""Quality of service in recordings: what was offered while recording is offered again while playing."""

from __future__ import annotations

from collections.abc import Sequence

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from usx_runtime.duration import Duration
from usx_runtime.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

# Deep enough that a subscriber which the machine stalls for a second loses nothing at 100 messages a second.
VOLATILE_DEPTH = 100
INFINITE = QosTime(9223372036, 854775807)


def from_recorded(profile: Qos) -> QoSProfile:
    """The policies of a recorded profile that matter for playing: reliability, durability, depth."""
    best_effort = profile.reliability == QosReliability.BEST_EFFORT
    latched = profile.durability == QosDurability.TRANSIENT_LOCAL
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=profile.depth or 10,
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def to_play(offers: Sequence[QoSProfile]) -> QoSProfile:
    """One publisher's profile in place of all publishers that were recorded, as rosbag2 chooses it.

    Best effort, or volatile, as soon as one of them was. A latched topic keeps as many messages as its publishers
    kept together, so that a late subscriber gets what it would have got."""
    best_effort = any(offer.reliability == ReliabilityPolicy.BEST_EFFORT for offer in offers)
    latched = bool(offers) and all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
    depth = sum(offer.depth for offer in offers)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=min(depth, 1000) if latched else VOLATILE_DEPTH,
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def to_subscribe(offers: Sequence[QoSProfile], depth: int) -> QoSProfile:
    """A subscription that matches every one of `offers` (asking for no more than the weakest of them)."""
    reliable = all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
    latched = bool(offers) and all(offer.durability == DurabilityPolicy.TRANSIENT_LOCAL for offer in offers)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def to_recorded(offer: QoSProfile) -> Qos:
    """A discovered publisher's profile as rosbag2 writes it down."""
    reliable = offer.reliability == ReliabilityPolicy.RELIABLE
    latched = offer.durability == DurabilityPolicy.TRANSIENT_LOCAL
    return Qos(
        QosHistory(int(offer.history)),  # discovery tells no history: "unknown", depth 0, as ROS 2 records it
        offer.depth,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        _time(offer.deadline),
        _time(offer.lifespan),
        QosLiveliness.AUTOMATIC,
        _time(offer.liveliness_lease_duration),
        False,
    )


def _time(duration: Duration) -> QosTime:
    if not 0 < duration.nanoseconds < 2**63 - 1:
        return INFINITE
    return QosTime(*divmod(duration.nanoseconds, 10**9))
