"""rclpy.parameter: one parameter, its type, and its message form."""

from __future__ import annotations

import array
from collections.abc import Callable
from enum import Enum
from typing import Any

from usx_runtime.messages import get_message

PARAMETER_SEPARATOR_STRING = "."
_FIELDS = {
    1: "bool_value", 2: "integer_value", 3: "double_value", 4: "string_value", 5: "byte_array_value",
    6: "bool_array_value", 7: "integer_array_value", 8: "double_array_value", 9: "string_array_value",
}
_INT64 = 2**63


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _all(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (list, tuple, array.array)) and all(map(check, value))


_CHECKS: dict[int, Callable[[Any], bool]] = {
    0: lambda value: value is None,
    1: lambda value: isinstance(value, bool),
    2: _is_integer,
    3: lambda value: isinstance(value, float),
    4: lambda value: isinstance(value, str),
    5: _all(lambda item: isinstance(item, bytes) and len(item) == 1),
    6: _all(lambda item: isinstance(item, bool)),
    7: _all(_is_integer),
    8: _all(lambda item: isinstance(item, float)),
    9: _all(lambda item: isinstance(item, str)),
}


class Parameter:
    """A name with a value of one of the ten parameter types."""

    class Type(Enum):
        NOT_SET = 0
        BOOL = 1
        INTEGER = 2
        DOUBLE = 3
        STRING = 4
        BYTE_ARRAY = 5
        BOOL_ARRAY = 6
        INTEGER_ARRAY = 7
        DOUBLE_ARRAY = 8
        STRING_ARRAY = 9

        @classmethod
        def from_parameter_value(cls, value: Any) -> Parameter.Type:
            """Type of a Python value; an empty list is a byte array, as in rclpy. Raises TypeError."""
            for kind in cls:
                if _CHECKS[kind.value](value):
                    return kind
            raise TypeError("The given value is not one of the allowed types '" + repr(value) + "'.")

        def check(self, value: Any) -> bool:
            return _CHECKS[self.value](value)

    @classmethod
    def from_parameter_msg(cls, param_msg: Any) -> Parameter:
        """Of rcl_interfaces/msg/Parameter."""
        kind = cls.Type(param_msg.value.type)
        value: Any = getattr(param_msg.value, _FIELDS[kind.value]) if kind.value else None
        return cls(param_msg.name, kind, list(value) if kind.value > 4 else value)

    def __init__(self, name: str, type_: Parameter.Type | None = None, value: Any = None) -> None:
        if type_ is None:
            type_ = Parameter.Type.from_parameter_value(value)
        if not isinstance(type_, Parameter.Type):
            raise TypeError(f"type must be an instance of 'Type', not {type_!r}")
        if not type_.check(value):
            raise ValueError(f"Type '{type_}' and value '{value}' do not agree")
        integers = value if type_ is Parameter.Type.INTEGER_ARRAY else [value]
        if type_ in (Parameter.Type.INTEGER, Parameter.Type.INTEGER_ARRAY) and not all(
                -_INT64 <= item < _INT64 for item in integers):
            raise ValueError(f"parameter '{name}' = {value}: does not fit 64 bits")
        self._type_, self._name, self._value = type_, name, value

    name = property(lambda self: self._name)
    type_ = property(lambda self: self._type_)
    value = property(lambda self: self._value)

    def __repr__(self) -> str:
        return f"Parameter(name={self._name!r}, type={self._type_}, value={self._value!r})"

    def get_parameter_value(self) -> Any:
        """rcl_interfaces/msg/ParameterValue."""
        message = get_message("rcl_interfaces/msg/ParameterValue")(type=self._type_.value)
        if self._type_ is not Parameter.Type.NOT_SET:
            setattr(message, _FIELDS[self._type_.value], self._value)
        return message

    def to_parameter_msg(self) -> Any:
        """rcl_interfaces/msg/Parameter."""
        return get_message("rcl_interfaces/msg/Parameter")(name=self._name, value=self.get_parameter_value())


def parameter_value_to_python(parameter_value: Any) -> Any:
    """Value of rcl_interfaces/msg/ParameterValue."""
    return Parameter.from_parameter_msg(
        get_message("rcl_interfaces/msg/Parameter")(name="value", value=parameter_value)).value
