"""How the environment of ROS 2 configures Cyclone DDS: domain, discovery range, peers, CYCLONEDDS_URI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from xml.sax.saxutils import quoteattr

from usx_runtime.user_error import UserError

MAX_DOMAIN_ID = 232  # ports are 7400 + 250 * domain + ...; above, they leave the 16-bit range
MAX_PARTICIPANTS = 100  # processes per domain on one host that find each other without multicast


class DomainError(UserError, RuntimeError):
    """A domain that cannot be joined; the message says which and why."""


def domain_id(environment: Mapping[str, str] = os.environ) -> int:
    """ROS_DOMAIN_ID, 0 where it is not set; raises DomainError for a value out of range."""
    text = environment.get("ROS_DOMAIN_ID", "").strip() or "0"
    return checked_domain(text)


def checked_domain(value: str | int) -> int:
    """`value` as domain id; raises DomainError."""
    try:
        number = int(value)
    except ValueError:
        number = -1
    if not 0 <= number <= MAX_DOMAIN_ID:
        raise DomainError(f"ROS_DOMAIN_ID = {value}: must be an integer between 0 and {MAX_DOMAIN_ID}")
    return number


def discovery_range(environment: Mapping[str, str] = os.environ) -> str:
    """LOCALHOST (the default here), SUBNET, OFF or SYSTEM_DEFAULT; raises DomainError for another word."""
    if environment.get("ROS_LOCALHOST_ONLY", "") == "1":
        return "LOCALHOST"
    word = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").strip().upper() or "LOCALHOST"
    if word not in ("LOCALHOST", "SUBNET", "OFF", "SYSTEM_DEFAULT"):
        raise DomainError(f"ROS_AUTOMATIC_DISCOVERY_RANGE = {word}: must be LOCALHOST, SUBNET, OFF or SYSTEM_DEFAULT")
    return word


def participants(domain: int) -> int:
    """How many processes of one host find each other in a domain: the last domains have fewer ports left."""
    return min(MAX_PARTICIPANTS, (65535 - (7400 + 250 * domain + 11)) // 2 + 1)


def cyclone_config(environment: Mapping[str, str] = os.environ, domain: int = 0) -> str:
    """Configuration of the Cyclone domain: ours, then what the user's CYCLONEDDS_URI adds or overrides."""
    word = discovery_range(environment)
    peers = [p for p in environment.get("ROS_STATIC_PEERS", "").split(";") if p.strip()]
    general = "<MaxMessageSize>65500B</MaxMessageSize>"
    discovery = ""
    if word == "LOCALHOST":
        general += '<Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces>'
        peers = ["127.0.0.1"]
    if word in ("LOCALHOST", "OFF"):
        general += "<AllowMulticast>false</AllowMulticast>"
    if word == "OFF":
        discovery += f"<Tag>off-{os.getpid()}</Tag>"
        peers = []
    if word in ("LOCALHOST", "OFF") or peers:
        discovery += (
            "<ParticipantIndex>auto</ParticipantIndex>"
            f"<MaxAutoParticipantIndex>{participants(domain) - 1}</MaxAutoParticipantIndex>"
        )
    if peers:
        listed = "".join(f"<Peer address={quoteattr(peer.strip())}/>" for peer in peers)
        discovery += f"<Peers>{listed}</Peers>"
    own = (
        f'<CycloneDDS><Domain id="any"><General>{general}</General><Discovery>{discovery}</Discovery></Domain>'
        "</CycloneDDS>"
    )
    user = environment.get("CYCLONEDDS_URI", "").strip()
    return f"{own},{user}" if user else own
