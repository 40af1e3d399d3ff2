"""RIHS01 hashes, against values published by ROS 2 Jazzy and against rosbags' implementation."""

from __future__ import annotations

import pytest

from usx_runtime import messages
from usx_runtime.dds.typehash import type_hash


@pytest.mark.parametrize(("type_name", "start"), [
    ("rmw_dds_common/msg/ParticipantEntitiesInfo", "91a0593b"),
    ("example_interfaces/srv/AddTwoInts", "e118de6b"),
    ("std_msgs/msg/String", "df668c740482bbd48fb39d76a70dfd4bd59db1288021743503259e948f6b1a18"),
    ("geometry_msgs/msg/Twist", "9c45bf16fe0983d80e3cfe750d6835843d265a9a6c46bd2e609fcddde6fb8d2a"),
])
def test_published_values(type_name: str, start: str) -> None:
    assert type_hash(type_name).startswith(f"RIHS01_{start}")


def uses_char(type_name: str) -> bool:
    return any(f.base == "char" or ("/" in f.base and uses_char(f.base)) for f in messages.fields_of(type_name))


def test_types_without_char_agree_with_rosbags() -> None:
    store, compared = messages.typestore(), 0
    for type_name in messages.message_types():
        if not uses_char(type_name):
            assert type_hash(type_name) == store.hash_rihs01(type_name)
            compared += 1
    assert compared > 100


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(messages.UnknownType, match="no_msgs/msg/No"):
        type_hash("no_msgs/msg/No")
