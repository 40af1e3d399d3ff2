"""CDR, the wire format of ROS 2 messages: Python source for the reader and writer of one message type.

Plain CDR version 1, little endian, as every ROS 2 middleware writes it: each number aligned to its own size, counted
from the end of the 4-byte header; strings with a terminating zero. Runs of numbers go through one struct.Struct and
sequences of numbers through the buffer protocol, so that an image costs one copy.
"""

from __future__ import annotations

import array
import struct
from typing import Any, NamedTuple

HEADER = b"\x00\x01\x00\x00"
PADDING = tuple(b"\x00" * n for n in range(8))


class MalformedMessage(ValueError):
    """Bytes that are no serialised message of the expected type."""


class Primitive(NamedTuple):
    code: str  # of struct
    size: int  # bytes, also the alignment
    default: str  # source of the default value


PRIMITIVES = {
    "bool": Primitive("?", 1, "False"), "byte": Primitive("c", 1, "b'\\x00'"), "char": Primitive("B", 1, "0"),
    "int8": Primitive("b", 1, "0"), "uint8": Primitive("B", 1, "0"),
    "int16": Primitive("h", 2, "0"), "uint16": Primitive("H", 2, "0"),
    "int32": Primitive("i", 4, "0"), "uint32": Primitive("I", 4, "0"),
    "int64": Primitive("q", 8, "0"), "uint64": Primitive("Q", 8, "0"),
    "float32": Primitive("f", 4, "0.0"), "float64": Primitive("d", 8, "0.0"),
}
UNBOUNDED, SCALAR = 0, ""


class Field(NamedTuple):
    """One field of a message definition."""

    name: str
    base: str  # a key of PRIMITIVES, "string", or a message type such as std_msgs/msg/Header
    container: str = SCALAR  # or "array" (fixed length) or "sequence"
    size: int = UNBOUNDED  # length of an array, bound of a sequence
    string_bound: int = UNBOUNDED

    @property
    def primitive(self) -> Primitive | None:
        return PRIMITIVES.get(self.base)

    @property
    def numeric(self) -> bool:
        """Held as array.array or numpy array when repeated; bool and byte are held in lists, as rclpy does."""
        return self.primitive is not None and self.base not in ("bool", "byte")


def read_count(data: memoryview, position: int, size: int) -> tuple[int, int]:
    """Length of a sequence whose elements take at least `size` bytes -> (length, position behind it)."""
    position += -position & 3
    (count,) = struct.unpack_from("<I", data, position)
    if count * size > len(data) - position - 4:
        raise MalformedMessage(f"a sequence of {count} elements in {len(data)} bytes")
    return count, position + 4


def read_string(data: memoryview, position: int) -> tuple[str, int]:
    """-> (text, position behind it)."""
    count, position = read_count(data, position, 1)
    return str(data[position:position + max(count - 1, 0)], "utf-8", "replace"), position + count


def write_string(out: bytearray, text: str) -> None:
    encoded = text.encode()
    out += PADDING[-len(out) & 3]
    out += struct.pack("<I", len(encoded) + 1)
    out += encoded
    out += b"\x00"


def write_numbers(out: bytearray, values: Any, size: int) -> None:
    """The elements of an array.array, a numpy array or a buffer, in their machine (little-endian) order."""
    if len(values):
        out += PADDING[(4 - len(out)) % size]
        out += memoryview(values).cast("B")


def to_array(code: str, data: memoryview) -> array.array:
    """A copy of the elements as array.array, rclpy's type for sequences of numbers."""
    values = array.array(code)
    values.frombytes(data)
    return values


def scalar_runs(fields: list[Field]) -> list[list[Field]]:
    """Neighbouring scalars that one struct can pack: none needs a larger alignment than the first."""
    runs: list[list[Field]] = []
    for field in fields:
        last = runs[-1] if runs else None
        joins = (
            last is not None and last[0].primitive and not last[0].container
            and field.primitive and not field.container and field.primitive.size <= last[0].primitive.size
        )
        if joins and last is not None:
            last.append(field)
        else:
            runs.append([field])
    return runs


def run_layout(run: list[Field]) -> str:
    """struct format of a run that starts aligned."""
    layout, offset = "<", 0
    for field in run:
        primitive = PRIMITIVES[field.base]
        pad = -offset % primitive.size
        layout += "x" * pad + primitive.code
        offset += pad + primitive.size
    return layout


def single_run(fields: list[Field]) -> str | None:
    """struct format of a type of equally sized numbers (Point, ColorRGBA): its sequences are packed at once."""
    sizes = {f.primitive.size if f.primitive and not f.container else 0 for f in fields}
    return run_layout(fields) if len(sizes) == 1 and 0 not in sizes else None


def writer_source(fields: list[Field], plain: dict[str, tuple[str, list[str]]]) -> list[str]:
    """Lines of `write(m, out)`; `plain` maps a type that is a single run to (format, slots)."""
    lines = ["def write(m, out):"]
    for run in scalar_runs(fields):
        field, value = run[0], f"m._{run[0].name}"
        if field.primitive and not field.container:
            lines.append(f"    out += PADDING[(4 - len(out)) % {field.primitive.size}]")
            lines.append(f"    out += pack({run_layout(run)!r}, {', '.join(f'm._{f.name}' for f in run)})")
            continue
        if field.container == "sequence":
            lines += ["    out += PADDING[-len(out) & 3]", f"    out += pack('<I', len({value}))"]
        if field.container:
            lines += _repeated_writer(field, value, plain)
        elif field.base == "string":
            lines.append(f"    write_string(out, {value})")
        else:
            lines.append(f"    types[{field.base!r}].__write__({value}, out)")
    return [*lines, "    return out"]


def _repeated_writer(field: Field, value: str, plain: dict[str, tuple[str, list[str]]]) -> list[str]:
    if field.numeric:
        return [f"    write_numbers(out, {value}, {PRIMITIVES[field.base].size})"]
    if field.base == "bool":
        return [f"    out += bytes(map(bool, {value}))"]
    if field.base == "byte":
        return [f"    out += b''.join({value})"]
    if field.base == "string":
        return [f"    for item in {value}: write_string(out, item)"]
    if field.base in plain:
        layout, slots = plain[field.base]
        size = struct.calcsize(layout) // len(slots)
        numbers = ", ".join(f"i._{slot}" for slot in slots)
        return [
            f"    if {value}:",
            f"        out += PADDING[(4 - len(out)) % {size}]",
            f"        one = Struct({layout!r}).pack",
            f"        out += b''.join([one({numbers}) for i in {value}])",
        ]
    return [f"    one = types[{field.base!r}].__write__", f"    for item in {value}: one(item, out)"]


def reader_source(fields: list[Field], plain: dict[str, tuple[str, list[str]]]) -> list[str]:
    """Lines of `read(data, pos)` -> (message, position behind it)."""
    lines = ["def read(data, pos):", "    m = new(cls)"]
    for run in scalar_runs(fields):
        field, target = run[0], f"m._{run[0].name}"
        if field.primitive and not field.container:
            layout = run_layout(run)
            lines += [
                f"    pos += -pos % {field.primitive.size}",
                f"    {', '.join(f'm._{f.name}' for f in run)}, = unpack_from({layout!r}, data, pos)",
                f"    pos += {struct.calcsize(layout)}",
            ]
        elif field.container:
            lines += _repeated_reader(field, target, plain)
        elif field.base == "string":
            lines.append(f"    {target}, pos = read_string(data, pos)")
        else:
            lines.append(f"    {target}, pos = types[{field.base!r}].__read__(data, pos)")
    return [*lines, "    return m, pos"]


def _repeated_reader(field: Field, target: str, plain: dict[str, tuple[str, list[str]]]) -> list[str]:
    size = field.primitive.size if field.primitive else 1
    sequence = field.container == "sequence"
    lines = [f"    n, pos = read_count(data, pos, {size})" if sequence else f"    n = {field.size}"]
    if field.primitive:
        align = [f"    if n: pos += -pos % {size}"] if size > 1 else []
        part = f"data[pos:pos + n * {size}]"
        value = {"bool": f"[b != 0 for b in {part}]", "byte": f"[bytes((b,)) for b in {part}]"}.get(field.base)
        if value is None and field.container == "array":
            value = f"frombuffer(data, '<{field.primitive.code}', n, pos).copy()"
        elif value is None:
            value = f"to_array({field.primitive.code!r}, {part})"
        return [*lines, *align, f"    {target} = {value}", f"    pos += n * {size}"]
    if field.base in plain and sequence:
        layout, slots = plain[field.base]
        return [
            *lines,
            f"    if n: pos += -pos % {struct.calcsize(layout) // len(slots)}",
            f"    end = pos + n * {struct.calcsize(layout)}",
            "    if end > len(data): raise MalformedMessage('a sequence ends beyond the message')",
            f"    {target} = list(starmap(types[{field.base!r}].__make__, iter_unpack({layout!r}, data[pos:end])))",
            "    pos = end",
        ]
    one = "read_string" if field.base == "string" else f"types[{field.base!r}].__read__"
    return [
        *lines, f"    one, {target} = {one}, []", "    for _ in range(n):", "        item, pos = one(data, pos)",
        f"        {target}.append(item)",
    ]
