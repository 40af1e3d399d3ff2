"""Message classes and CDR, with rosbags' own serialisation as the oracle."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usx_runtime import messages
from usx_runtime.cdr import MalformedMessage
from usx_runtime.message_classes import integer_range

STORE = messages.typestore()
TYPES = messages.message_types()
NUMPY = {"bool": np.bool_, "byte": np.uint8, "char": np.uint8}


def scalar(rng: np.random.Generator, base: str, bound: int) -> Any:
    if base == "string":
        return "".join(rng.choice(list("abc/_ äß€0"), rng.integers(0, bound or 9)))
    if base == "bool":
        return bool(rng.integers(0, 2))
    if base in ("float32", "float64"):
        return float(np.float32(rng.normal() * 1e3))
    low, high = integer_range("uint8" if base in ("byte", "char") else base)
    return int(rng.integers(low, high, endpoint=True, dtype=np.int64 if low < 0 else np.uint64))


def build(rng: np.random.Generator, type_name: str) -> tuple[Any, Any]:
    """(our message, rosbags' object) with the same random content."""
    ours, theirs = {}, {}
    for field in messages.fields_of(type_name):
        count = {"": 1, "array": field.size}.get(field.container, int(rng.integers(0, min(field.size or 4, 4) + 1)))
        if "/" in field.base:
            pairs = [build(rng, field.base) for _ in range(count)]
            own, other = [p[0] for p in pairs], [p[1] for p in pairs]
        else:
            other = [scalar(rng, field.base, field.string_bound) for _ in range(count)]
            own = [bytes((v,)) for v in other] if field.base == "byte" else list(other)
        if not field.container:
            signed = other[0] - 256 if field.base == "byte" and other[0] > 127 else other[0]  # rosbags' view of a byte
            ours[field.name], theirs[field.name] = own[0], signed
        else:
            ours[field.name] = own
            numeric = field.base not in ("string",) and "/" not in field.base
            theirs[field.name] = np.array(other, NUMPY.get(field.base) or field.base) if numeric else other
    return messages.get_message(type_name)(**ours), STORE.types[type_name](**theirs)


@pytest.mark.parametrize("type_name", TYPES)
def test_every_type_serialises_to_the_bytes_of_rosbags(type_name: str) -> None:
    rng = np.random.default_rng(7)
    for _ in range(4):
        ours, theirs = build(rng, type_name)
        data = messages.serialize(ours)
        assert data == bytes(STORE.serialize_cdr(theirs, type_name))
        assert messages.deserialize(data, type(ours)) == ours
        padded = data + bytes(-len(data) % 4)
        assert messages.serialize(messages.deserialize(padded, type(ours))) == data


def test_defaults_serialise_for_every_type() -> None:
    for type_name in TYPES:
        kind = messages.get_message(type_name)
        assert messages.deserialize(messages.serialize(kind()), kind) == kind()


IMAGE = messages.get_message("sensor_msgs/msg/Image")


@pytest.mark.parametrize(("data", "why"), [
    (b"", "encapsulation"),
    (b"\x00\x00\x00\x00" + bytes(60), "encapsulation"),
    (b"\x00\x01\x00\x00", "no sensor_msgs"),
    (messages.serialize(IMAGE())[:-6], "no sensor_msgs|elements"),
    (messages.serialize(IMAGE()) + bytes(8), "expected"),
    (messages.serialize(IMAGE())[:-4] + b"\xff\xff\xff\xff", "sequence of 4294967295"),
])
def test_foreign_bytes_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(MalformedMessage, match=why):
        messages.deserialize(data, IMAGE)


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 200), noise=st.binary(min_size=0, max_size=40))
def test_damaged_bytes_raise_only_malformed_message(cut: int, noise: bytes) -> None:
    _, theirs = build(np.random.default_rng(3), "visualization_msgs/msg/Marker")
    data = bytearray(STORE.serialize_cdr(theirs, "visualization_msgs/msg/Marker"))
    data[4 + cut:4 + cut + len(noise)] = noise
    try:
        messages.deserialize(data, messages.get_message("visualization_msgs/msg/Marker"))
    except MalformedMessage:
        pass


def test_a_list_with_a_foreign_object_cannot_be_serialised() -> None:
    message = messages.get_message("tf2_msgs/msg/TFMessage")()
    message.transforms.append("no transform")
    with pytest.raises(TypeError, match="TFMessage"):
        messages.serialize(message)


def test_sequences_are_arrays_and_bytes_are_bytes() -> None:
    image = messages.deserialize(messages.serialize(IMAGE(data=[1, 2])), IMAGE)
    assert isinstance(image.data, array.array) and image.data.typecode == "B"
    status = messages.get_message("diagnostic_msgs/msg/DiagnosticStatus")
    assert status.WARN == b"\x01"
    assert messages.deserialize(messages.serialize(status(level=status.WARN)), status).level == b"\x01"
    with pytest.raises(AttributeError):
        status.WARN = b"\x02"


def test_modules_stand_for_message_packages() -> None:
    assert messages.module_for("sensor_msgs.msg").Image is IMAGE
    assert messages.module_for("std_srvs.srv").Trigger.Response().message == ""
    assert messages.module_for("sensor_msgs").__path__ == []
    for name in ("numpy", "unknown_msgs", "unknown_msgs.msg", "sensor_msgs.srv", "sensor_msgs.msg.deeper"):
        assert messages.module_for(name) is None
    with pytest.raises(AttributeError, match="Imago"):
        _ = messages.module_for("sensor_msgs.msg").Imago
    with pytest.raises(messages.UnknownType, match="no_msgs"):
        messages.get_message("no_msgs/msg/No")
    with pytest.raises(messages.UnknownType, match="Triger"):
        messages.get_service("std_srvs/srv/Triger")


def test_a_definition_from_a_bag_makes_a_class() -> None:
    text = "std_msgs/Header header\nPart[2] parts\n" + "=" * 80 + "\nMSG: bench_msgs/Part\nuint16[] values\n"
    messages.register(text, "bench_msgs/msg/Whole")
    whole = messages.get_message("bench_msgs/msg/Whole")()
    whole.parts[1].values = [1, 65535]
    assert list(messages.deserialize(messages.serialize(whole), type(whole)).parts[1].values) == [1, 65535]
