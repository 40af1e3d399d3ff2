"""Elements of a launch file: their attributes, conditions and truth values, checked."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from usx_runtime.launch.substitutions import Scope, expand
from usx_runtime.user_error import UserError

Element = ElementTree.Element
# split into words before they are expanded (a path with blanks stays one word), or not expanded at all
LATE = ("cmd", "args", "ros_args", "default", "description")


class LocatedError(UserError):
    """An error that names its place already."""


def describe(element: Element) -> str:
    """The element as it begins in the file, for messages."""
    attributes = "".join(f' {key}="{value}"' for key, value in list(element.attrib.items())[:2])
    return f"<{element.tag}{attributes}>"


def take(
    element: Element, scope: Scope, *required: str, optional: tuple[str, ...] = (), children: tuple[str, ...] = ()
) -> dict[str, str]:
    """The expanded attributes of `element`; complains of missing and of unknown ones, and of unknown children."""
    missing = [name for name in required if name not in element.attrib]
    unknown = [name for name in element.attrib if name not in (*required, *optional, "if", "unless")]
    strange = [child.tag for child in element if child.tag not in children] if element.tag != "group" else []
    for names, what in ((missing, "is missing"), (unknown, "is not supported")):
        if names:
            raise UserError(f"attribute '{names[0]}' {what}")
    if strange:
        raise UserError(f"<{strange[0]}> is not supported inside <{element.tag}>")
    return {name: value if name in LATE else expand(value, scope) for name, value in element.attrib.items()}


def holds(element: Element, scope: Scope) -> bool:
    """Whether the element's `if` or `unless` lets it act."""
    if "if" in element.attrib and "unless" in element.attrib:
        raise UserError("has both 'if' and 'unless'")
    if "if" in element.attrib:
        return truth(expand(element.attrib["if"], scope), "if")
    if "unless" in element.attrib:
        return not truth(expand(element.attrib["unless"], scope), "unless")
    return True


def truth(text: str, attribute: str) -> bool:
    """The truth value that `text` spells; raises UserError naming `attribute`."""
    value = text.strip().lower()
    if value in ("true", "1"):
        return True
    if value in ("false", "0"):
        return False
    raise UserError(f"{attribute}='{text}': must be true, false, 1 or 0")


def join_namespaces(outer: str, inner: str) -> str:
    """`inner` within `outer`, unless it is absolute."""
    if not inner:
        return outer
    joined = inner if inner.startswith("/") else f"{outer.rstrip('/')}/{inner}"
    return joined.rstrip("/") or "/"
