"""The <param> elements of a node, handed to it in parameter files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from usx_runtime.launch.elements import Element, describe, holds, take, truth
from usx_runtime.launch.substitutions import Scope, expand
from usx_runtime.user_error import UserError

CONVERT: dict[str, Callable[[str], object]] = {"str": str, "int": int, "float": float}


class ParameterFiles:
    """Writes parameter files into `folder`; `warnings` collects what was skipped."""

    def __init__(self, folder: Path, warnings: list[str]) -> None:
        self.folder = folder
        self.warnings = warnings

    def of(self, element: Element, scope: Scope, node_name: str) -> list[Path]:
        """Files for --params-file, in the order of the <param> elements (a later one wins)."""
        files: list[Path] = []
        for item in element.findall("param"):
            if not holds(item, scope):
                continue
            if item.get("from") is None:
                values = dict(_parameter_values(item, scope, ""))
                files.append(self._write({node_name: {"ros__parameters": values}}))
                continue
            taken = take(item, scope, "from", optional=("allow_substs",))
            file = Path(taken["from"])
            if not taken["from"]:
                continue  # an argument left empty
            if not file.is_file():  # ROS 2 goes on as well
                self.warnings.append(f"{describe(element)}: parameter file '{file}' does not exist, skipped")
            elif truth(taken.get("allow_substs", "false"), "allow_substs"):
                files.append(self._write(expand(file.read_text(), scope)))
            else:
                files.append(file.absolute())
        return files

    def _write(self, content: object) -> Path:
        handle, name = tempfile.mkstemp(".yaml", "launch_params_", self.folder)
        with os.fdopen(handle, "w") as stream:
            stream.write(content if isinstance(content, str) else yaml.safe_dump(content))
        return Path(name)


def _parameter_values(item: Element, scope: Scope, prefix: str) -> list[tuple[str, Any]]:
    children = item.findall("param")
    if children:
        name = prefix + take(item, scope, "name", children=("param",))["name"] + "."
        return [pair for child in children for pair in _parameter_values(child, scope, name)]
    taken = take(item, scope, "name", "value", optional=("type", "sep", "value-sep"))
    separator = taken.get("value-sep") or taken.get("sep")
    texts = taken["value"].split(separator) if separator else [taken["value"]]
    values = [_convert(text, taken.get("type")) for text in texts]
    return [(prefix + taken["name"], values if separator else values[0])]


def _convert(text: str, kind: str | None) -> object:
    """A parameter's value: by its `type`, else by the rules of YAML."""
    if kind == "bool":
        return truth(text, "value")
    if kind is not None:
        try:
            return CONVERT[kind](text)
        except KeyError:
            raise UserError(f"type='{kind}': must be bool, {', '.join(CONVERT)}") from None
        except ValueError:
            raise UserError(f"value='{text}' is no {kind}") from None
    try:
        value = yaml.safe_load(text) if text else text
    except yaml.YAMLError:
        return text
    return value if isinstance(value, bool | int | float | str | list) else text
