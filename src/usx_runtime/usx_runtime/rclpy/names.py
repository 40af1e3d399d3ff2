"""Names of nodes, topics and services: their rules, and relative names made absolute."""

from __future__ import annotations

import re

from usx_runtime.rclpy.exceptions import (
    InvalidNamespaceException,
    InvalidNodeNameException,
    InvalidServiceNameException,
    InvalidTopicNameException,
)

_TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def fully_qualified(node: str, namespace: str) -> str:
    """`/namespace/node`."""
    return f"{namespace.rstrip('/')}/{node}"


def check_node_name(name: str) -> str:
    """`name` if it is a valid node name; raises InvalidNodeNameException."""
    if not name:
        raise InvalidNodeNameException(name, "node name must not be empty", 0)
    found = _TOKEN.match(name)
    if found is None or found.end() != len(name):
        reason = "node name must not contain characters other than alphanumerics or '_', nor start with a number"
        raise InvalidNodeNameException(name, reason, found.end() if found else 0)
    return name


def check_namespace(namespace: str) -> str:
    """`namespace`, made absolute; raises InvalidNamespaceException."""
    absolute = namespace if namespace.startswith("/") else f"/{namespace}"
    fault = _fault(absolute) if absolute != "/" else None
    if fault is not None:
        raise InvalidNamespaceException(absolute, *fault)
    return absolute


def expand(name: str, node: str, namespace: str, service: bool = False) -> str:
    """The absolute form of a topic or service name; raises InvalidTopicNameException / InvalidServiceNameException."""
    if name == "~" or name.startswith("~/"):
        absolute = fully_qualified(node, namespace) + name[1:]
    elif name.startswith("/"):
        absolute = name
    else:
        absolute = fully_qualified(name, namespace)
    fault = _fault(absolute) if name else ("topic name must not be empty string", 0)
    if fault is not None:
        raise (InvalidServiceNameException if service else InvalidTopicNameException)(name, *fault)
    return absolute


def _fault(absolute: str) -> tuple[str, int] | None:
    """What is wrong with an absolute name, and where."""
    position = 0
    for token in absolute.split("/")[1:]:
        position += 1
        found = _TOKEN.match(token)
        if not token:
            return "name must not contain repeated '/' nor end with it", min(position, len(absolute) - 1)
        if found is None or found.end() != len(token):
            return ("name tokens must contain only alphanumerics and '_' and not start with a number",
                    position + (found.end() if found else 0))
        position += len(token)
    return None
