"""RIHS01, the hash of a ROS interface type (REP-2011): SHA-256 of its type description as JSON.

rosbags has one too, which is wrong for types with `char`: ROS maps the `char` of .msg files to uint8.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

from usx_runtime.cdr import Field
from usx_runtime.messages import fields_of, get_service, service_files

# Numbers of type_description_interfaces/msg/FieldType.
_TYPE_IDS = {
    "int8": 2, "uint8": 3, "int16": 4, "uint16": 5, "int32": 6, "uint32": 7, "int64": 8, "uint64": 9,
    "float32": 10, "float64": 11, "char": 3, "bool": 15, "byte": 16, "string": 17,
}
_NESTED, _BOUNDED_STRING = 1, 21
_ARRAY, _BOUNDED_SEQUENCE, _SEQUENCE = 48, 96, 144


def _field(field: Field) -> dict[str, Any]:
    nested = field.base if "/" in field.base else ""
    number = _NESTED if nested else _BOUNDED_STRING if field.string_bound else _TYPE_IDS[field.base]
    if field.container == "array":
        number += _ARRAY
    elif field.container:
        number += _BOUNDED_SEQUENCE if field.size else _SEQUENCE
    kind = {"type_id": number, "capacity": field.size, "string_capacity": field.string_bound,
            "nested_type_name": nested}
    return {"name": field.name, "type": kind}


def _fields(type_name: str) -> list[Field]:
    if type_name in service_files():
        get_service(type_name)
        parts = {"request_message": "_Request", "response_message": "_Response", "event_message": "_Event"}
        return [Field(name, type_name + suffix) for name, suffix in parts.items()]
    return fields_of(type_name)


@cache
def type_hash(type_name: str) -> str:
    """`RIHS01_...` of a message type or of a service type; raises UnknownType."""
    described: dict[str, Any] = {}
    waiting = [type_name]
    while waiting:
        name = waiting.pop()
        if name not in described:
            fields = _fields(name)
            described[name] = {"type_name": name, "fields": [_field(field) for field in fields]}
            waiting += [field.base for field in fields if "/" in field.base]
    document = {
        "type_description": described[type_name],
        "referenced_type_descriptions": [described[name] for name in sorted(described) if name != type_name],
    }
    return "RIHS01_" + hashlib.sha256(json.dumps(document).encode()).hexdigest()
