"""Message and service classes of ROS 2 Jazzy, generated at first use from rosbags' definitions.

rosbags ships no services: the few needed are in `interfaces/PACKAGE/srv/NAME.srv`.
"""

from __future__ import annotations

import threading
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from usx_runtime.cdr import HEADER, Field, MalformedMessage
from usx_runtime.message_classes import Message, build_class

INTERFACES = Path(__file__).parent / "interfaces"
_LOCK = threading.RLock()
_CONTAINERS = {3: "array", 4: "sequence"}


class UnknownType(KeyError):
    """No definition of a message or service type is known."""

    def __str__(self) -> str:
        return str(self.args[0])


@lru_cache(maxsize=1)
def typestore() -> Any:
    """rosbags' Jazzy type store, with the service types of this package added."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_JAZZY)


@lru_cache(maxsize=1)
def service_files() -> dict[str, Path]:
    """Service type names -> their definitions."""
    return {f"{p.parent.parent.name}/srv/{p.stem}": p for p in sorted(INTERFACES.glob("*/srv/*.srv"))}


def _parsed(text: str, type_name: str) -> dict[str, Any]:
    from rosbags.typesys import get_types_from_msg

    return get_types_from_msg(text, type_name)


def register(definition: str, type_name: str) -> None:
    """Adds the types of a message definition (as a bag carries it: sections divided by lines of `=`)."""
    known = typestore().fielddefs
    new = {name: value for name, value in _parsed(definition, type_name).items() if name not in known}
    if new:
        with _LOCK:
            typestore().register(new)


def definition(type_name: str) -> tuple[list[Any], list[Any]]:
    """(constants, fields) of a message type in rosbags' terms; raises UnknownType."""
    known = typestore().fielddefs
    if type_name not in known:
        service = service_files().get(type_name.rpartition("_")[0])
        if service is None:
            raise UnknownType(f"message type {type_name!r} is not known here; message types are named like"
                              " 'sensor_msgs/msg/Image'")
        _register_service(service)
    return known[type_name][0], known[type_name][1]


def _register_service(path: Path) -> None:
    """Adds the request, response and event messages of a service definition."""
    name = f"{path.parent.parent.name}/srv/{path.stem}"
    request, _, response = path.read_text().partition("---")
    from rosbags.interfaces import Nodetype

    event = [("info", (Nodetype.NAME, "service_msgs/msg/ServiceEventInfo"))]
    types: dict[str, Any] = {}
    for suffix, text in (("_Request", request), ("_Response", response.lstrip("-"))):
        (types[name + suffix],) = _parsed(text, name + suffix).values()
        event.append((suffix[1:].lower(), (Nodetype.SEQUENCE, ((Nodetype.NAME, name + suffix), 1))))  # type: ignore
    types[name + "_Event"] = ([], event)
    with _LOCK:
        typestore().register(types)


def fields_of(type_name: str) -> list[Field]:
    """The fields of a message type."""
    fields = []
    for name, description in definition(type_name)[1]:
        kind, content = int(description[0]), description[1]
        size = 0
        if kind in _CONTAINERS:
            content, size = content
            base = content[1]
        else:
            base = content
        bound = 0
        if not isinstance(base, str):
            base, bound = base
        fields.append(Field(name, base, _CONTAINERS.get(kind, ""), size, bound))
    return fields


class _Types(dict):
    """Message classes by type name, built when first asked for."""

    def __missing__(self, type_name: str) -> type[Message]:
        with _LOCK:
            if type_name not in self:
                fields = fields_of(type_name)
                for field in fields:
                    if "/" in field.base:
                        _ = self[field.base]
                self[type_name] = build_class(type_name, fields, _constants(type_name), self, _PLAIN)
            return self[type_name]


def _constants(type_name: str) -> dict[str, Any]:
    return {name: bytes((value,)) if kind == "byte" else value for name, kind, value in definition(type_name)[0]}


_TYPES = _Types()
_PLAIN: dict[str, tuple[str, list[str]]] = {}


def get_message(type_name: str) -> Any:
    """The class of a message type such as `sensor_msgs/msg/Image`; raises UnknownType."""
    return _TYPES[type_name]


@cache
def get_service(type_name: str) -> Any:
    """The class of a service type such as `std_srvs/srv/Trigger`, with Request and Response; raises UnknownType."""
    if type_name not in service_files():
        raise UnknownType(f"service type {type_name!r} is not known here; known: {', '.join(service_files())}")
    package, _, name = type_name.split("/")
    members = {"Request": get_message(f"{type_name}_Request"), "Response": get_message(f"{type_name}_Response"),
               "Event": get_message(f"{type_name}_Event"), "__msgtype__": type_name, "__module__": f"{package}.srv",
               "__doc__": f"Service class '{name}'."}
    return type(name, (), members)


def type_name_of(message_class: Any) -> str:
    """ROS name of a message or service class made here; raises TypeError for anything else."""
    name = getattr(message_class, "__msgtype__", None)
    if not isinstance(name, str):
        raise TypeError(f"{message_class!r} is no ROS message or service class")
    return name


def message_types() -> list[str]:
    """All known message types, sorted."""
    return sorted(name for name in typestore().fielddefs if "/msg/" in name)


def serialize(message: Any) -> bytes:
    """CDR of a message, with its header; raises TypeError for a message whose lists hold foreign objects."""
    try:
        return bytes(type(message).__write__(message, bytearray(HEADER)))
    except Exception as error:
        name = type_name_of(type(message))
        raise TypeError(f"a {name} cannot be serialised: {error}") from error


def deserialize(data: bytes | bytearray | memoryview, message_class: Any) -> Any:
    """A message of its CDR; raises MalformedMessage for bytes that are none."""
    view = memoryview(data)
    if bytes(view[:2]) != HEADER[:2]:
        raise MalformedMessage(f"encapsulation {bytes(view[:2])!r}: only little-endian CDR (00 01) is read")
    try:
        message, end = message_class.__read__(view[4:], 0)
    except MalformedMessage:
        raise
    except Exception as error:
        raise MalformedMessage(f"{len(view)} bytes are no {message_class.__msgtype__}: {error}") from error
    if not -4 < end - (len(view) - 4) <= 0:  # writers may pad to a multiple of four
        raise MalformedMessage(f"{len(view)} bytes are no {message_class.__msgtype__}: {end + 4} expected")
    return message


class _MessageModule(ModuleType):
    """`PACKAGE.msg` or `PACKAGE.srv`: its classes are built when first asked for."""

    def __init__(self, name: str, names: list[str]) -> None:
        super().__init__(name, f"Generated from the definitions of {name}.")
        self.__all__ = names
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name not in self.__dict__["__all__"]:
            raise AttributeError(f"module {self.__name__!r} has no {name!r}; it has: {', '.join(self.__all__)}")
        package, group = self.__name__.split(".")
        value = (get_message if group == "msg" else get_service)(f"{package}/{group}/{name}")
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.__all__]


@cache
def module_for(name: str) -> ModuleType | None:
    """The module standing for `PACKAGE`, `PACKAGE.msg` or `PACKAGE.srv`; None where no such messages are known."""
    package, _, group = name.partition(".")
    if not package.endswith(("_msgs", "_srvs", "_interfaces", "rmw_dds_common")) or group not in ("", "msg", "srv"):
        return None
    known = [*typestore().fielddefs, *service_files()]
    names = SimpleNamespace(
        msg=sorted(t.rpartition("/")[2] for t in known if t.startswith(f"{package}/msg/")),
        srv=sorted(t.rpartition("/")[2] for t in service_files() if t.startswith(f"{package}/srv/")))
    if group:
        found = getattr(names, group)
        return _MessageModule(name, found) if found else None
    if not names.msg and not names.srv:
        return None
    module = ModuleType(package, f"Messages and services of {package}.")
    module.__path__ = []
    return module
