"""Names and type descriptions under which ROS interfaces travel on DDS.

Cyclone's Python API serialises through IdlStruct classes. Those made here carry a description of the fields (so that
other DDS tools can show a topic) but pass bytes through: what is written is serialised already.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from cyclonedds import idl

from usx_runtime.cdr import Field
from usx_runtime.messages import fields_of

_LOCK = threading.RLock()
types: Any = idl.types
make_idl_struct = idl.make_idl_struct
_PRIMITIVES = {
    "bool": bool, "byte": types.uint8, "char": types.uint8, "string": str, "float32": types.float32,
    "float64": types.float64, "int8": types.int8, "uint8": types.uint8, "int16": types.int16,
    "uint16": types.uint16, "int32": types.int32, "uint32": types.uint32, "int64": types.int64,
    "uint64": types.uint64,
}
_SERVICE_HEADER = {"client_guid": types.uint64, "sequence_number": types.int64}


class Received:
    """What a reader gives for one sample: bytes, and Cyclone's information on them."""

    __slots__ = ("data", "sample_info")

    def __init__(self, data: bytes | None) -> None:
        self.data = data
        self.sample_info: Any = None


def _pass_bytes(kind: Any) -> Any:
    """Lets an IdlStruct class write its `payload` and read into Received."""
    kind.serialize = lambda self, *_, **__: self.payload
    kind.deserialize = classmethod(lambda cls, data, *_, **__: Received(data))
    kind.deserialize_key = classmethod(lambda cls, data, *_, **__: Received(None))
    return kind


def dds_type_name(type_name: str) -> str:
    """`sensor_msgs/msg/Image` -> `sensor_msgs::msg::dds_::Image_`."""
    package, group, name = type_name.split("/")
    return f"{package}::{group}::dds_::{name}_"


def ros_type_name(dds_name: str) -> str:
    """`sensor_msgs::msg::dds_::Image_` -> `sensor_msgs/msg/Image`; a name of another form is returned as it is."""
    parts = dds_name.split("::")
    if len(parts) == 4 and parts[2] == "dds_" and parts[3].endswith("_"):
        return f"{parts[0]}/{parts[1]}/{parts[3][:-1]}"
    return dds_name


def _annotation(field: Field) -> Any:
    inner = _PRIMITIVES.get(field.base) or _described(field.base)
    if field.string_bound:
        inner = types.bounded_str[field.string_bound]
    if field.container == "array":
        return types.array[inner, field.size]
    if field.container:
        return types.sequence[inner, field.size] if field.size else types.sequence[inner]
    return inner


@cache
def _described(type_name: str) -> type:
    fields = {field.name: _annotation(field) for field in fields_of(type_name)}
    return make_idl_struct(type_name.rpartition("/")[2] + "_", dds_type_name(type_name).replace("::", "."), fields)


@cache
def raw_type(type_name: str, service: bool = False) -> Any:
    """IdlStruct class that describes `type_name` and passes bytes; raises UnknownType.

    `service`: a request or response, which travels behind the header of rmw_cyclonedds (client, sequence number).
    """
    with _LOCK:
        fields: dict[str, Any] = dict(_SERVICE_HEADER) if service else {}
        fields |= {field.name: _annotation(field) for field in fields_of(type_name)}
        name = type_name.rpartition("/")[2] + "_"
        return _pass_bytes(make_idl_struct(name, dds_type_name(type_name).replace("::", "."), fields))


def wrap(kind: Any, data: bytes) -> Any:
    """A sample of `kind` whose serialised form is `data`."""
    sample = object.__new__(kind)
    sample.payload = data
    return sample
