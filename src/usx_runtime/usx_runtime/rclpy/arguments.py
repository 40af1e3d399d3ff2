"""The arguments behind --ros-args: remappings, parameters, parameter files, log levels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from usx_runtime.rclpy.exceptions import InvalidROSArgsError, UnknownROSArgsError
from usx_runtime.rclpy.names import expand, fully_qualified

_FLAGS = ("--enable-rosout-logs", "--disable-rosout-logs", "--enable-stdout-logs", "--disable-stdout-logs",
          "--enable-external-lib-logs", "--disable-external-lib-logs")
_IGNORED_WITH_VALUE = ("-e", "--enclave", "--log-config-file", "--log-file-name")


@dataclass
class Arguments:
    """What the ROS arguments of a process or node say."""

    remappings: list[tuple[str, str, str]] = field(default_factory=list)  # node ("" = any), from, to
    parameters: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # node pattern, values; later wins
    log_levels: list[tuple[str, str]] = field(default_factory=list)  # logger ("" = all), level
    others: list[str] = field(default_factory=list)  # the arguments that are not ROS's

    def node_name(self, name: str) -> str:
        return self._special(("__node", "__name"), name) or name

    def namespace(self, name: str, default: str) -> str:
        return self._special(("__ns",), name) or default

    def _special(self, keys: tuple[str, ...], name: str) -> str:
        for node, source, target in self.remappings:
            if source in keys and node in ("", name):
                return target
        return ""

    def remap(self, absolute: str, node: str, namespace: str, service: bool = False) -> str:
        """The name that a topic or service gets by the first rule that fits it."""
        for rule_node, source, target in self.remappings:
            if source.startswith("__") or rule_node not in ("", node):
                continue
            for scheme, only_service in (("rostopic://", False), ("rosservice://", True)):
                if source.startswith(scheme):
                    source = source[len(scheme):] if only_service == service else ""
            if source and expand(source, node, namespace) == absolute:
                return expand(target, node, namespace)
        return absolute

    def overrides(self, node: str, namespace: str) -> dict[str, Any]:
        """Parameter values for a node: what is said of all nodes (`/**`) first, then what names the node.

        Within each of the two, what comes later in the arguments or a file wins. So does rclpy; it applies no other
        wildcard, which here match as they do in rclcpp.
        """
        name = fully_qualified(node, namespace)
        matching = [(pattern, entries) for pattern, entries in self.parameters if node_pattern(pattern).fullmatch(name)]
        values: dict[str, Any] = {}
        for general in (True, False):
            for pattern, entries in matching:
                if (pattern.strip("/") == "**") is general:
                    values.update(entries)
        return values


def node_pattern(pattern: str) -> re.Pattern[str]:
    """Regular expression of a node name in a parameter file: `*` is one token, `**` any number of them."""
    if pattern.rstrip("/") in ("/**", "**"):
        return re.compile(r"/.*")
    tokens = [token for token in pattern.split("/") if token]
    known = {"**": r"(/[^/]+)*", "*": r"/[^/]+"}
    return re.compile("".join(known.get(token, "/" + re.escape(token)) for token in tokens))


class _Loader(yaml.SafeLoader):
    """YAML as rcl's parser reads it: 1e3 is a number; dates and 1:30 are words."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, expression) for tag, expression in rules if tag.rpartition(":")[2] in ("bool", "null", "merge")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_FLOAT = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+.0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0x[0-9a-fA-F]+|\d+)$"), list("-+0123456789"))


def _integer(loader: yaml.SafeLoader, node: Any) -> int:
    text = node.value
    return int(text, 16) if "x" in text else int(text)


def _float(loader: yaml.SafeLoader, node: Any) -> float:
    return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def load_yaml(text: str) -> Any:
    """A YAML document or value; raises InvalidROSArgsError."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InvalidROSArgsError(f"not readable as YAML: {' '.join(str(error).split())}") from error


def read_parameter_file(path: str) -> list[tuple[str, dict[str, Any]]]:
    """[(node pattern, {parameter: value})] of a parameter file; raises InvalidROSArgsError naming the file."""
    try:
        document = load_yaml(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidROSArgsError(f"parameter file {path}: {error}") from error
    except InvalidROSArgsError as error:
        raise InvalidROSArgsError(f"parameter file {path}: {error}") from error
    if document is None:
        return []
    found: list[tuple[str, dict[str, Any]]] = []
    _collect(document, "", found, path)
    return found


def _collect(content: Any, name: str, found: list[tuple[str, dict[str, Any]]], path: str) -> None:
    if not isinstance(content, dict):
        raise InvalidROSArgsError(
            f"parameter file {path}: {name or 'the document'} must be a mapping that leads to 'ros__parameters:',"
            f" not {content!r}")
    for key, value in content.items():
        if key == "ros__parameters":
            if not name:
                raise InvalidROSArgsError(f"parameter file {path}: 'ros__parameters' needs a node name above it")
            found.append((name, flatten(value or {}, path)))
        else:
            _collect(value, f"{name}/{str(key).strip('/')}" if name else f"/{str(key).lstrip('/')}", found, path)


def flatten(values: Any, path: str, prefix: str = "") -> dict[str, Any]:
    """{a: {b: 1}} -> {"a.b": 1}."""
    if not isinstance(values, dict):
        raise InvalidROSArgsError(f"parameter file {path}: {prefix or 'ros__parameters'} must hold names and values")
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, path, f"{prefix}{key}."))
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat


def _assignment(text: str, option: str) -> tuple[str, str, str]:
    """`node:name:=value` -> (node, name, value)."""
    left, assign, value = text.partition(":=")
    if not assign or not left:
        raise InvalidROSArgsError(f"{option} {text}: must have the form name:=value")
    if "://" in left:
        return "", left, value
    node, colon, name = left.rpartition(":")
    return (node, name, value) if colon else ("", left, value)


def _take_option(result: Arguments, option: str, value: str) -> None:
    if option in ("-r", "--remap"):
        result.remappings.append(_assignment(value, option))
    elif option in ("-p", "--param"):
        node, name, text = _assignment(value, option)
        content = load_yaml(text)
        entries = flatten(content, value, f"{name}.") if isinstance(content, dict) else {name: content}
        result.parameters.append((node or "/**", {k: "" if v is None else v for k, v in entries.items()}))
    elif option == "--params-file":
        result.parameters += read_parameter_file(value)
    elif option == "--log-level":
        logger, _, level = value.rpartition(":=")
        result.log_levels.append((logger, level))


def parse(args: Sequence[str]) -> Arguments:
    """Arguments of a process; raises UnknownROSArgsError and InvalidROSArgsError."""
    result, inside, position = Arguments(), False, 0
    args = list(args)
    while position < len(args):
        word = args[position]
        position += 1
        if word == "--ros-args":
            inside = True
        elif not inside:
            result.others.append(word)
        elif word == "--":
            inside = False
        elif word in _FLAGS:
            pass
        elif word in ("-r", "--remap", "-p", "--param", "--params-file", "--log-level", *_IGNORED_WITH_VALUE):
            if position == len(args):
                raise InvalidROSArgsError(f"{word}: a value must follow")
            _take_option(result, word, args[position])
            position += 1
        elif ":=" in word and not word.startswith("-"):  # the old form of a remapping
            _take_option(result, "-r", word)
        else:
            raise UnknownROSArgsError(f"Found unknown ROS arguments: {word}")
    return result


def merged(first: Arguments, second: Arguments) -> Arguments:
    """Both; a remapping of `first` and a parameter of `first` have precedence (a node's own over the process's)."""
    return Arguments(
        first.remappings + second.remappings, second.parameters + first.parameters,
        first.log_levels + second.log_levels, second.others)
