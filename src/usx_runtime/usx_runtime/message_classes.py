"""Message classes with the manners of rosidl's Python generator: slots, defaults, checked fields.

A field refuses what rclpy would refuse (an int for a float, a numpy array for a sequence, a number out of range), so
that a node written here runs on a real ROS. Sequences of numbers are array.array, fixed arrays of numbers numpy arrays,
`byte` is bytes of length one.
"""

from __future__ import annotations

import array
import math
import struct
from collections import UserList, UserString
from collections.abc import Callable, Sequence, Set
from itertools import starmap
from operator import attrgetter
from struct import iter_unpack, pack, unpack_from
from typing import Any

import numpy as np

from usx_runtime import cdr
from usx_runtime.cdr import PRIMITIVES, Field

# The field defaults of the Jazzy interface packages that are not zero; rosbags' definitions carry none.
DEFAULTS = {"geometry_msgs/msg/Quaternion": {"w": "1.0"}}
EMPTY = "structure_needs_at_least_one_member"  # what rosidl puts into a message without fields
FLOAT32_MAX = 3.402823466e38


class Message:
    """Base of all message classes."""

    __slots__: tuple[str, ...] = ()
    __msgtype__: str
    __fields__: tuple[Field, ...] = ()
    __write__: Callable[[Any, bytearray], bytearray]
    __read__: Callable[[memoryview, int], tuple[Any, int]]
    __make__: Callable[..., Any]

    def __init__(self, **kwargs: Any) -> None:
        type(self).__fill__(self)
        for name, value in kwargs.items():
            assert f"_{name}" in self.__slots__, f"Invalid arguments passed to constructor: {name}"
            setattr(self, name, value)

    @staticmethod
    def __fill__(message: Any) -> None:
        raise TypeError("only generated message classes have instances")

    @classmethod
    def get_fields_and_field_types(cls) -> dict[str, str]:
        """Field names and their types as text, like rosidl's."""
        return {field.name: field_text(field) for field in cls.__fields__ if field.name != EMPTY}

    def __repr__(self) -> str:
        values = ", ".join(f"{field.name}={_shown(getattr(self, field.name))}" for field in self.__fields__
                           if field.name != EMPTY)
        return f"{self.__msgtype__.replace('/', '.')}({values})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return False
        return all(_same(getattr(self, slot), getattr(other, slot)) for slot in self.__slots__)

    __hash__ = None  # type: ignore[assignment]


def _shown(value: Any) -> str:
    return repr(value.tolist()) if isinstance(value, (np.ndarray, array.array)) else repr(value)


def _same(one: Any, two: Any) -> bool:
    return bool(np.array_equal(one, two)) if isinstance(one, np.ndarray) else bool(one == two)


def field_text(field: Field) -> str:
    """`sequence<uint8>`, `double[9]`, `std_msgs/Header`, ..."""
    base = {"float64": "double", "float32": "float", "bool": "boolean", "byte": "octet", "char": "uint8"}.get(
        field.base, field.base.replace("/msg/", "/"))
    base += f"<{field.string_bound}>" if field.string_bound else ""
    if field.container == "array":
        return f"{base}[{field.size}]"
    bound = f", {field.size}" if field.size else ""
    return f"sequence<{base}{bound}>" if field.container else base


def integer_range(base: str) -> tuple[int, int]:
    """Smallest and largest value of an integer type."""
    bits = 8 * PRIMITIVES[base].size
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if base.startswith("int") else (0, 2**bits - 1)


def scalar_check(field: Field, lookup: Callable[[str], type]) -> tuple[Callable[[Any], bool], str]:
    """-> (whether a value fits one element of the field, the words for it)."""
    base = field.base
    if base == "string":
        bound = field.string_bound or math.inf
        return (lambda value: isinstance(value, str) and len(value) <= bound), "of type 'str'"
    if base == "bool":
        return (lambda value: isinstance(value, bool)), "of type 'bool'"
    if base == "byte":
        return (lambda value: isinstance(value, (bytes, bytearray)) and len(value) == 1), "of type 'bytes' of length 1"
    if base in ("float32", "float64"):
        limit = FLOAT32_MAX if base == "float32" else math.inf
        fits = lambda value: isinstance(value, float) and (abs(value) <= limit or not math.isfinite(value))  # noqa: E731
        return fits, "of type 'float'"
    if base in PRIMITIVES:
        low, high = integer_range(base)
        return (lambda value: isinstance(value, int) and low <= value <= high), f"an integer in [{low}, {high}]"
    kind = lookup(base)
    return (lambda value: isinstance(value, kind)), f"a sub message of type '{base}'"


def checked_property(type_name: str, field: Field, lookup: Callable[[str], type]) -> property:
    """The property of one field: reads its slot, writes what fits it."""
    slot, words = f"_{field.name}", f"The '{field.name}' field of {type_name} must be "
    setter = _repeated_setter if field.container else _scalar_setter
    return property(attrgetter(slot), setter(slot, words, field, lookup))


def _scalar_setter(slot: str, words: str, field: Field, lookup: Callable[[str], type]) -> Callable[[Any, Any], None]:
    fits, kind = scalar_check(field, lookup)

    def assign(message: Any, value: Any) -> None:
        if not fits(value):
            raise AssertionError(f"{words}{kind}, not {_brief(value)}")
        object.__setattr__(message, slot, value)

    return assign


def _brief(value: Any) -> str:
    return f"{repr(value)[:60]} ({type(value).__name__})"


def _repeated_setter(slot: str, words: str, field: Field, lookup: Callable[[str], type]) -> Callable[[Any, Any], None]:
    fits, kind = scalar_check(field, lookup)
    exact = field.size if field.container == "array" else None
    bound = field.size or math.inf
    code = PRIMITIVES[field.base].code if field.numeric else ""

    def refuse(value: Any, why: str) -> None:
        raise AssertionError(f"{words}{why}, not {_brief(value)}")

    def assign(message: Any, value: Any) -> None:
        ready = isinstance(value, array.array) if exact is None else isinstance(value, np.ndarray)
        if not ready and (not isinstance(value, (Sequence, Set, UserList)) or isinstance(value, (str, UserString))):
            refuse(value, "a set or sequence")
        if len(value) > bound or (exact is not None and len(value) != exact):
            refuse(value, f"of length {'' if exact is not None else 'at most '}{bound}")
        if ready and code:
            if (value.typecode if exact is None else value.dtype.char) != code and _code(value) != code:
                refuse(value, f"an array of type code '{code}'")
            object.__setattr__(message, slot, value)
            return
        if not (code == "B" and isinstance(value, (bytes, bytearray))) and not all(map(fits, value)):
            refuse(value, f"a set or sequence and each value {kind}")
        if code:
            value = array.array(code, value) if exact is None else np.array(list(value), dtype=f"<{code}")
        object.__setattr__(message, slot, value)

    return assign


def _code(values: Any) -> str:
    """Type code of the same width as `values` under the other name C has for it (l and q are both 64 bits)."""
    if isinstance(values, np.ndarray):
        return {"l": "q", "L": "Q"}.get(values.dtype.char, "")
    return {("l", 8): "q", ("L", 8): "Q", ("l", 4): "i", ("L", 4): "I"}.get((values.typecode, values.itemsize), "")


def fill_source(type_name: str, fields: list[Field]) -> list[str]:
    """Lines of `fill(m)`, which gives every slot its default."""
    lines = ["def fill(m):"]
    for field in fields:
        if field.container == "sequence":
            value = f"array({PRIMITIVES[field.base].code!r})" if field.numeric else "[]"
        else:
            value = DEFAULTS.get(type_name, {}).get(field.name) or _default_of_one(field.base)
            if field.container and field.numeric:
                value = f"zeros({field.size}, '<{PRIMITIVES[field.base].code}')"
            elif field.container:
                value = f"[{value} for _ in range({field.size})]"
        lines.append(f"    m._{field.name} = {value}")
    return [*lines, "    return m"]


def _default_of_one(base: str) -> str:
    if base == "string":
        return "''"
    return PRIMITIVES[base].default if base in PRIMITIVES else f"types[{base!r}]()"


def make_source(fields: list[Field]) -> list[str]:
    """Lines of `make(...)`: a message of unchecked values, for what comes off the wire."""
    lines = [f"def make({', '.join(f.name + '_' for f in fields)}):", "    m = new(cls)"]
    return [*lines, *(f"    m._{f.name} = {f.name}_" for f in fields), "    return m"]


class Constants(type):
    """Metaclass that keeps the constants of a message class from being assigned."""

    def __setattr__(cls, name: str, value: Any) -> None:
        if name in cls.__constants__:  # type: ignore[attr-defined]
            raise AttributeError(f"{name} is a constant of {cls.__name__}")
        super().__setattr__(name, value)


def build_class(
    type_name: str, fields: list[Field], constants: dict[str, Any], types: Any, plain: dict[str, tuple[str, list[str]]],
) -> type[Message]:
    """The class of message type `type_name`.

    `types[name]` gives the class of another type; `plain` collects the types that are one run of equal numbers.
    """
    package, group, name = type_name.split("/")
    namespace = {
        "__slots__": tuple(f"_{field.name}" for field in fields), "__module__": f"{package}.{group}",
        "__doc__": f"Message class '{name}'.", "__msgtype__": type_name, "__fields__": tuple(fields),
        "__constants__": frozenset(constants), **constants,
    }
    for field in fields:
        namespace[field.name] = checked_property(type_name, field, types.__getitem__)
    cls: Any = Constants(name, (Message,), namespace)
    source = [
        *fill_source(type_name, fields), *make_source(fields),
        *cdr.writer_source(fields, plain), *cdr.reader_source(fields, plain),
    ]
    scope: dict[str, Any] = {
        "cls": cls, "types": types, "new": object.__new__, "array": array.array, "zeros": np.zeros,
        "frombuffer": np.frombuffer, "pack": pack, "unpack_from": unpack_from, "iter_unpack": iter_unpack,
        "Struct": struct.Struct, "starmap": starmap, "PADDING": cdr.PADDING, "read_count": cdr.read_count,
        "read_string": cdr.read_string, "write_string": cdr.write_string, "write_numbers": cdr.write_numbers,
        "to_array": cdr.to_array, "MalformedMessage": cdr.MalformedMessage,
    }
    exec(compile("\n".join(source), f"<{type_name}>", "exec"), scope)
    for function in ("fill", "make", "write", "read"):
        setattr(cls, f"__{function}__", staticmethod(scope[function]))
    layout = cdr.single_run(fields)
    if layout is not None:
        plain[type_name] = (layout, [field.name for field in fields])
    return cls
