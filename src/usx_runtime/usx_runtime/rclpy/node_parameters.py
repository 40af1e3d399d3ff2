"""The parameters of a node: declaring, reading, setting, ranges, callbacks."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from usx_runtime.messages import get_message
from usx_runtime.rclpy.exceptions import (
    InvalidParameterException,
    InvalidParameterTypeException,
    InvalidParameterValueException,
    ParameterAlreadyDeclaredException,
    ParameterImmutableException,
    ParameterNotDeclaredException,
    ParameterUninitializedException,
)
from usx_runtime.rclpy.parameter import Parameter

NO_VALUE: Any = object()
Callback = Callable[[list[Parameter]], Any]


def _descriptor(**fields: Any) -> Any:
    return get_message("rcl_interfaces/msg/ParameterDescriptor")(**fields)


def _result(reason: str = "") -> Any:
    return get_message("rcl_interfaces/msg/SetParametersResult")(successful=not reason, reason=reason)


def range_fault(descriptor: Any, parameter: Parameter) -> str:
    """Why the value leaves the range of its descriptor, empty if it does not; arrays are checked by element."""
    values = parameter.value if isinstance(parameter.value, (list, tuple)) else [parameter.value]
    if parameter.type_ in (Parameter.Type.INTEGER, Parameter.Type.INTEGER_ARRAY) and descriptor.integer_range:
        limits = descriptor.integer_range[0]
        for value in values:
            if not _in_range(value, limits, lambda low, step, value: (value - low) % step == 0):
                return _outside(parameter, value, limits, "Integer")
    if parameter.type_ in (Parameter.Type.DOUBLE, Parameter.Type.DOUBLE_ARRAY) and descriptor.floating_point_range:
        limits = descriptor.floating_point_range[0]
        for value in values:
            if not _in_range(value, limits, _on_step):
                return _outside(parameter, value, limits, "Floating point")
    return ""


def _on_step(low: float, step: float, value: float) -> bool:
    return math.isclose((value - low) / step, round((value - low) / step), rel_tol=1e-9, abs_tol=1e-9)


def _in_range(value: Any, limits: Any, on_step: Callable[[Any, Any, Any], bool]) -> bool:
    low, high = min(limits.from_value, limits.to_value), max(limits.from_value, limits.to_value)
    if value in (low, high):
        return True
    return low < value < high and (not limits.step or on_step(low, limits.step, value))


def _outside(parameter: Parameter, value: Any, limits: Any, kind: str) -> str:
    step = f" in steps of {limits.step}" if limits.step else ""
    return (f"Parameter {parameter.name} out of range. {kind} value {value} must be between"
            f" {limits.from_value} and {limits.to_value}{step}")


class NodeParameters:
    """Base of Node with all that concerns parameters."""

    def _init_parameters(self, overrides: dict[str, Parameter], allow_undeclared: bool) -> None:
        self._parameters: dict[str, Parameter] = {}
        self._descriptors: dict[str, Any] = {}
        self._parameter_overrides = overrides
        self._allow_undeclared = allow_undeclared
        self._on_set_callbacks: list[Callback] = []
        self._post_set_callbacks: list[Callback] = []

    # declaring

    def declare_parameter(
        self, name: str, value: Any = NO_VALUE, descriptor: Any = None, ignore_override: bool = False,
    ) -> Parameter:
        """Declares a parameter with its default (or, to be set by an override only, its Parameter.Type).

        Raises ParameterAlreadyDeclaredException, InvalidParameterException (name), InvalidParameterTypeException and
        InvalidParameterValueException (the override or default does not fit), ParameterUninitializedException later
        when a value that never came is read."""
        return self.declare_parameters("", [(name, value, descriptor or _descriptor())], ignore_override)[0]

    def declare_parameters(
        self, namespace: str, parameters: Sequence[tuple[Any, ...]], ignore_override: bool = False,
    ) -> list[Parameter]:
        """Declares (name,), (name, default) or (name, default, descriptor) below `namespace`."""
        declared = []
        for entry in parameters:
            name = f"{namespace}.{entry[0]}" if namespace else entry[0]
            default = entry[1] if len(entry) > 1 else NO_VALUE
            descriptor = entry[2] if len(entry) > 2 and entry[2] is not None else _descriptor()
            declared.append(self._declare_one(name, default, descriptor, ignore_override))
        return declared

    def _declare_one(self, name: str, default: Any, descriptor: Any, ignore_override: bool) -> Parameter:
        if not isinstance(name, str) or not name:
            raise InvalidParameterException(name)
        if name in self._descriptors:
            raise ParameterAlreadyDeclaredException([name])
        descriptor = copy.copy(descriptor)
        parameter, descriptor.name = self._first_value(name, default, descriptor), name
        if not ignore_override and name in self._parameter_overrides:
            parameter = self._parameter_overrides[name]
        if parameter.type_ is not Parameter.Type.NOT_SET or descriptor.type != Parameter.Type.NOT_SET.value:
            if not descriptor.dynamic_typing and not descriptor.type:
                descriptor.type = parameter.type_.value
        self._descriptors[name] = descriptor
        self._parameters[name] = Parameter(name)
        if parameter.type_ is Parameter.Type.NOT_SET and not descriptor.dynamic_typing:
            return self._parameters[name]
        result = self._apply([parameter], declaring=True)
        if not result.successful:
            del self._descriptors[name], self._parameters[name]
            if result.reason.startswith(("Wrong parameter type", "Trying to set")):
                raise InvalidParameterTypeException(parameter, Parameter.Type(descriptor.type).name)
            raise InvalidParameterValueException(name, parameter.value, result.reason)
        return self._parameters[name]

    def _first_value(self, name: str, default: Any, descriptor: Any) -> Parameter:
        if isinstance(default, Parameter.Type):
            if descriptor.dynamic_typing:
                raise ValueError(f"dynamic typing is incompatible with a type for parameter '{name}'")
            descriptor.type = default.value
            return Parameter(name)
        if default is NO_VALUE or default is None:
            if default is NO_VALUE and not descriptor.dynamic_typing and not descriptor.type:
                descriptor.dynamic_typing = True
                warnings.warn(f"parameter '{name}': declare_parameter without a default is deprecated", stacklevel=5)
            if default is None and not descriptor.dynamic_typing:
                raise ParameterUninitializedException(name)
            return Parameter(name)
        if descriptor.dynamic_typing:
            return Parameter(name, value=default)
        parameter = Parameter(name, value=default)
        descriptor.type = parameter.type_.value
        return parameter

    def undeclare_parameter(self, name: str) -> None:
        if name not in self._descriptors:
            raise ParameterNotDeclaredException(name)
        if self._descriptors[name].read_only:
            raise ParameterImmutableException(name)
        del self._descriptors[name]
        self._parameters.pop(name, None)

    def has_parameter(self, name: str) -> bool:
        return name in self._parameters

    # reading

    def get_parameter(self, name: str) -> Parameter:
        """Raises ParameterNotDeclaredException, ParameterUninitializedException."""
        if name not in self._parameters:
            if self._allow_undeclared:
                return Parameter(name)
            raise ParameterNotDeclaredException(name)
        parameter = self._parameters[name]
        descriptor = self._descriptors.get(name)
        if parameter.type_ is Parameter.Type.NOT_SET and descriptor is not None and not descriptor.dynamic_typing:
            raise ParameterUninitializedException(name)
        return parameter

    def get_parameters(self, names: Sequence[str]) -> list[Parameter]:
        return [self.get_parameter(name) for name in names]

    def get_parameter_or(self, name: str, alternative_value: Parameter | None = None) -> Parameter:
        found = self._parameters.get(name)
        if found is not None and found.type_ is not Parameter.Type.NOT_SET:
            return found
        return alternative_value if alternative_value is not None else Parameter(name)

    def get_parameters_by_prefix(self, prefix: str) -> dict[str, Parameter]:
        start = f"{prefix}." if prefix else ""
        return {name[len(start):]: p for name, p in self._parameters.items() if name.startswith(start)}

    def describe_parameter(self, name: str) -> Any:
        if name not in self._descriptors:
            raise ParameterNotDeclaredException(name)
        return self._descriptors[name]

    def get_parameter_type(self, name: str) -> Parameter.Type:
        if name not in self._parameters:
            raise ParameterNotDeclaredException(name)
        return self._parameters[name].type_

    # setting

    def set_parameters(self, parameter_list: Sequence[Parameter]) -> list[Any]:
        """One SetParametersResult per parameter; raises ParameterNotDeclaredException before setting any."""
        self._require_declared(parameter_list)
        return [self._apply([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(self, parameter_list: Sequence[Parameter]) -> Any:
        """All or none -> SetParametersResult."""
        self._require_declared(parameter_list)
        return self._apply(list(parameter_list))

    def _require_declared(self, parameters: Sequence[Parameter]) -> None:
        if any(not isinstance(parameter, Parameter) for parameter in parameters):
            raise TypeError("parameters must be instances of rclpy.parameter.Parameter")
        missing = [p.name for p in parameters if p.name not in self._descriptors]
        if missing and not self._allow_undeclared:
            raise ParameterNotDeclaredException(missing)

    def _apply(self, parameters: list[Parameter], declaring: bool = False) -> Any:
        for parameter in parameters:
            fault = self._fault(parameter, declaring)
            if fault:
                return _result(fault)
        for callback in self._on_set_callbacks:
            result = callback(parameters)
            if not result.successful:
                return result
        for parameter in parameters:
            self._parameters[parameter.name] = parameter
            self._descriptors.setdefault(parameter.name, _descriptor(name=parameter.name, dynamic_typing=True))
        for callback in self._post_set_callbacks:
            callback(parameters)
        return _result()

    def _fault(self, parameter: Parameter, declaring: bool) -> str:
        descriptor = self._descriptors.get(parameter.name)
        if descriptor is None:
            return ""
        if descriptor.read_only and not declaring:
            return f"Trying to set a read-only parameter: {parameter.name}."
        if not descriptor.dynamic_typing and descriptor.type != parameter.type_.value:
            if parameter.type_ is Parameter.Type.NOT_SET:
                return "Static parameter cannot be undeclared"
            return (f"Wrong parameter type, expected 'Type.{Parameter.Type(descriptor.type).name}'"
                    f" got '{parameter.type_}'")
        return range_fault(descriptor, parameter)

    def add_on_set_parameters_callback(self, callback: Callback) -> None:
        """`callback(parameters) -> SetParametersResult` judges every change before it happens; newest first."""
        self._on_set_callbacks.insert(0, callback)

    def remove_on_set_parameters_callback(self, callback: Callback) -> None:
        self._on_set_callbacks.remove(callback)

    def add_post_set_parameters_callback(self, callback: Callback) -> None:
        """`callback(parameters)` is told of every change that has happened."""
        self._post_set_callbacks.insert(0, callback)

    def remove_post_set_parameters_callback(self, callback: Callback) -> None:
        self._post_set_callbacks.remove(callback)
