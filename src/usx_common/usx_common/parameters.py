"""Tables of a node's parameters, without ROS: name, default, description, range; checked before use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from usx_common.errors import UsxError


@dataclass(frozen=True)
class Parameter:
    """One parameter. Its type is that of ``default``: bool, int, float, str, or a list of one of these.

    An empty list stands for "not given"; the type of its elements is then ``element`` . ``length`` fixes how many
    numbers a list must have when it is given. ``check`` gets a valid value and returns a reason to refuse it, or "".
    """

    name: str
    default: Any
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: Sequence[Any] | None = None
    read_only: bool = False
    length: int | None = None
    element: type = float
    check: Callable[[Any], str] | None = None

    @property
    def is_list(self) -> bool:
        return isinstance(self.default, (list, tuple))

    @property
    def element_type(self) -> type:
        """Type of the value, or of the elements of a list."""
        if not self.is_list:
            return type(self.default)
        return type(self.default[0]) if len(self.default) else self.element


def validate(parameter: Parameter, value: Any) -> Any:
    """The value in the parameter's own type. Raises UsxError naming parameter, value and what it must be."""
    values = list(value) if parameter.is_list and _is_sequence(value) else [value]
    if parameter.is_list and not _is_sequence(value):
        raise _refusal(parameter, value, f"a list of {parameter.element_type.__name__}")
    if parameter.is_list and values and parameter.length is not None and len(values) != parameter.length:
        raise _refusal(parameter, value, f"a list of {parameter.length} numbers (it has {len(values)})")
    checked = [_validate_element(parameter, value, element) for element in values]
    result = checked if parameter.is_list else checked[0]
    reason = parameter.check(result) if parameter.check else ""
    if reason:
        raise _refusal(parameter, value, reason)
    return result


def document(table: Iterable[Parameter]) -> str:
    """Markdown table of the parameters, for the reference pages."""
    rows = ["| parameter | default | range | meaning |", "|---|---|---|---|"]
    for parameter in table:
        default = "`" + ("[]" if parameter.is_list and not parameter.default else str(parameter.default)) + "`"
        default = "empty" if parameter.default == "" else default
        rows.append(f"| `{parameter.name}` | {default} | {_range(parameter)} | {parameter.description} |")
    return "\n".join(rows) + "\n"


def _validate_element(parameter: Parameter, whole: Any, element: Any) -> Any:
    kind = parameter.element_type
    is_number = isinstance(element, (int, float)) and not isinstance(element, bool)
    if kind is float and is_number:
        element = float(element)
    if kind is not type(element):
        raise _refusal(parameter, whole, f"of type {kind.__name__}")
    if isinstance(element, (int, float)) and not math.isfinite(element):
        raise _refusal(parameter, whole, "finite")
    if isinstance(element, (int, float)) and not _within(parameter, element):
        raise _refusal(parameter, whole, _range(parameter))
    if parameter.choices is not None and element not in parameter.choices:
        raise _refusal(parameter, whole, _range(parameter))
    return element


def _within(parameter: Parameter, number: float) -> bool:
    low = -math.inf if parameter.minimum is None else parameter.minimum
    high = math.inf if parameter.maximum is None else parameter.maximum
    return low <= number <= high


def _range(parameter: Parameter) -> str:
    if parameter.choices is not None:
        return "one of " + ", ".join(str(choice) for choice in parameter.choices)
    if parameter.minimum is not None and parameter.maximum is not None:
        return f"{parameter.minimum:g} .. {parameter.maximum:g}"
    if parameter.minimum is not None:
        return f">= {parameter.minimum:g}"
    if parameter.maximum is not None:
        return f"<= {parameter.maximum:g}"
    return f"{parameter.length} numbers" if parameter.length is not None else ""


def _is_sequence(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, (str, bytes, dict))


def _refusal(parameter: Parameter, value: Any, must_be: str) -> UsxError:
    return UsxError(f"parameter '{parameter.name}' = {value!r} is refused: it must be {must_be}")
