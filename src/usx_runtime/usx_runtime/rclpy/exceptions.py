"""rclpy.exceptions: the names and the words of rclpy."""

from __future__ import annotations

from typing import Any


class NotInitializedException(Exception):
    def __init__(self, *args: Any) -> None:
        super().__init__("rclpy.init() has not been called", *args)


class ExternalShutdownException(Exception):
    """The context was shut down while the executor waited."""

    def __init__(self, *args: Any) -> None:
        super().__init__("rclpy.shutdown() has been called", *args)


class ContextEnded(NotInitializedException, ExternalShutdownException):
    """A signal came before the node: who handles ExternalShutdownException around spin() handles this too."""


class NoTypeSupportImportedException(Exception):
    pass


class NameValidationException(Exception):
    """A name that breaks the rules of ROS names."""

    def __init__(self, name_type: str, name: str, error_msg: str, invalid_index: int) -> None:
        message = f"Invalid {name_type}: {error_msg}:\n  '{name}'\n   {' ' * invalid_index}^"
        super().__init__(message)
        self.name_type, self.name, self.error_msg, self.invalid_index = name_type, name, error_msg, invalid_index


class InvalidNamespaceException(NameValidationException):
    def __init__(self, name: str, error_msg: str, invalid_index: int) -> None:
        super().__init__("namespace", name, error_msg, invalid_index)


class InvalidNodeNameException(NameValidationException):
    def __init__(self, name: str, error_msg: str, invalid_index: int) -> None:
        super().__init__("node name", name, error_msg, invalid_index)


class InvalidTopicNameException(NameValidationException):
    def __init__(self, name: str, error_msg: str, invalid_index: int) -> None:
        super().__init__("topic name", name, error_msg, invalid_index)


class InvalidServiceNameException(NameValidationException):
    def __init__(self, name: str, error_msg: str, invalid_index: int) -> None:
        super().__init__("service name", name, error_msg, invalid_index)


class UnknownROSArgsError(RuntimeError):
    pass


class InvalidROSArgsError(RuntimeError):
    """ROS arguments that cannot be read: a remapping without `:=`, a parameter file that is missing or no mapping."""


class ParameterException(Exception):
    """Base of the errors about parameters."""

    def __init__(self, error_msg: str, parameters: Any, *args: Any) -> None:
        super().__init__(f"{error_msg}: {parameters}", *args)


class ParameterNotDeclaredException(ParameterException):
    def __init__(self, parameters: Any, *args: Any) -> None:
        super().__init__("Invalid access to undeclared parameter(s)", parameters, *args)


class ParameterAlreadyDeclaredException(ParameterException):
    def __init__(self, parameters: Any, *args: Any) -> None:
        super().__init__("Parameter(s) already declared", parameters, *args)


class InvalidParameterException(ParameterException):
    def __init__(self, parameter: Any, *args: Any) -> None:
        super().__init__("Invalid parameter name", parameter, *args)


class InvalidParameterTypeException(ParameterException):
    def __init__(self, desired_parameter: Any, expected_type: str, *args: Any) -> None:
        message = (
            f"Trying to set parameter '{desired_parameter.name}' to '{desired_parameter.value}' of type"
            f" '{desired_parameter.type_.name}', expecting type '{expected_type}'")
        super().__init__(message, desired_parameter.name, *args)


class InvalidParameterValueException(ParameterException):
    def __init__(self, parameter: Any, value: Any, reason: str, *args: Any) -> None:
        super().__init__(
            f"Invalid parameter value ({value}) for parameter. Reason: {reason}", parameter, *args)


class ParameterUninitializedException(ParameterException):
    def __init__(self, parameter: Any, *args: Any) -> None:
        super().__init__("The parameter is not initialized", parameter, *args)


class ParameterImmutableException(ParameterException):
    def __init__(self, parameter: Any, *args: Any) -> None:
        super().__init__("Attempted to modify read-only parameter", parameter, *args)


class ROSInterruptException(Exception):
    def __init__(self, *args: Any) -> None:
        super().__init__("rclpy.shutdown() has been called", *args)
