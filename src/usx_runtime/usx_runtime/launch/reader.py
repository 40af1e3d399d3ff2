"""Reads a launch file (XML) and everything it includes into the list of processes to start."""

from __future__ import annotations

import os
import shlex
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from pathlib import Path

from usx_runtime.executables import find_executable
from usx_runtime.launch.elements import Element, LocatedError, describe, holds, join_namespaces, take, truth
from usx_runtime.launch.parameters import ParameterFiles
from usx_runtime.launch.processes import EMBEDDED, Process, embedded_command, embedded_shell_line
from usx_runtime.launch.substitutions import Scope, expand, split_words
from usx_runtime.user_error import UserError

PROCESS_ATTRIBUTES = ("output", "on_exit", "respawn", "respawn_delay", "launch-prefix", "cwd")


def read_launch_file(file: Path, arguments: Mapping[str, str], temporary: Path) -> tuple[list[Process], list[str]]:
    """(processes, warnings) of a launch file. Parameter values are handed to nodes in files under `temporary`.

    Raises UserError naming the file and the element where something is wrong."""
    reader = _Reader(temporary)
    scope = Scope(file.resolve(), variables=dict(arguments), environment=dict(os.environ))
    reader.run_file(scope)
    reader.warnings += [
        f"launch argument '{name}:={arguments[name]}' is declared nowhere in {file.name}"
        for name in arguments
        if name not in reader.declared
    ]
    return reader.processes, reader.warnings


def declared_arguments(file: Path) -> list[tuple[str, str | None, str]]:
    """(name, default as written or None, description) of the arguments that `file` itself declares."""
    return [
        (item.get("name", ""), item.get("default"), item.get("description", "no description given"))
        for item in _parse(file).iter("arg")
        if item.get("value") is None
    ]


def _parse(file: Path) -> Element:
    if not file.is_file():
        raise UserError(f"launch file '{file}' does not exist")
    if file.suffix != ".xml":
        raise UserError(f"launch file '{file}': the embedded launch reads XML only (NAME.launch.xml)")
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        raise UserError(f"{file}: not well-formed XML: {error}") from None
    if root.tag != "launch":
        raise UserError(f"{file}: the outermost element must be <launch>, not <{root.tag}>")
    return root


class _Reader:
    def __init__(self, temporary: Path) -> None:
        self.processes: list[Process] = []
        self.warnings: list[str] = []
        self.parameter_files = ParameterFiles(temporary, self.warnings)
        self.declared: set[str] = set()
        self.depth = 0
        self.actions: dict[str, Callable[[Element, Scope], None]] = {
            "arg": self._arg,
            "let": self._let,
            "node": self._node,
            "executable": self._executable,
            "include": self._include,
            "group": self._group,
            "push_ros_namespace": self._push_namespace,
            "push-ros-namespace": self._push_namespace,
            "set_parameter": self._set_parameter,
            "set_env": self._set_env,
            "unset_env": self._unset_env,
        }

    def run_file(self, scope: Scope) -> None:
        self.depth += 1
        if self.depth > 30:
            raise UserError(f"{scope.file}: launch files include each other without end")
        self._run(_parse(scope.file), scope)
        self.depth -= 1

    def _run(self, parent: Element, scope: Scope) -> None:
        for element in parent:
            action = self.actions.get(element.tag)
            try:
                if action is None:
                    known = ", ".join(f"<{tag}>" for tag in self.actions)
                    raise UserError(f"not supported by the embedded launch; it knows {known}")
                if holds(element, scope):
                    action(element, scope)
            except UserError as error:
                if isinstance(error, LocatedError):
                    raise
                raise LocatedError(f"{scope.file}: {describe(element)}: {error}") from None

    # ---- actions

    def _arg(self, element: Element, scope: Scope) -> None:
        name = take(element, scope, "name", optional=("default", "description"), children=("choice",))["name"]
        self.declared.add(name)
        if name not in scope.variables:
            default = element.get("default")
            if default is None:
                what = element.get("description", "no description given")
                raise UserError(f"the launch argument '{name}' ({what}) is required: give {name}:=VALUE")
            scope.variables[name] = expand(default, scope)
        choices = [expand(item.get("value", ""), scope) for item in element.iter("choice")]
        if choices and scope.variables[name] not in choices:
            raise UserError(f"{name}:={scope.variables[name]}: must be one of {', '.join(choices)}")

    def _let(self, element: Element, scope: Scope) -> None:
        taken = take(element, scope, "name", "value")
        scope.variables[taken["name"]] = taken["value"]

    def _set_env(self, element: Element, scope: Scope) -> None:
        taken = take(element, scope, "name", "value")
        scope.environment[taken["name"]] = taken["value"]

    def _unset_env(self, element: Element, scope: Scope) -> None:
        scope.environment.pop(take(element, scope, "name")["name"], None)

    def _set_parameter(self, element: Element, scope: Scope) -> None:
        taken = take(element, scope, "name", "value")
        scope.parameters.append((taken["name"], taken["value"]))

    def _push_namespace(self, element: Element, scope: Scope) -> None:
        scope.namespace = join_namespaces(scope.namespace, take(element, scope, "namespace")["namespace"])

    def _group(self, element: Element, scope: Scope) -> None:
        taken = take(element, scope, optional=("scoped",), children=tuple(self.actions))
        scoped = truth(taken.get("scoped", "true"), "scoped")
        self._run(element, scope.inner() if scoped else scope)

    def _include(self, element: Element, scope: Scope) -> None:
        file = Path(take(element, scope, "file", children=("arg", "let"))["file"])
        for argument in element:
            taken = take(argument, scope, "name", "value")
            scope.variables[taken["name"]] = taken["value"]
        # As in ROS 2 an included file sees, and changes, the variables of the file that includes it.
        outer, scope.file = scope.file, (file if file.is_absolute() else scope.file.parent / file)
        try:
            self.run_file(scope)
        finally:
            scope.file = outer

    def _executable(self, element: Element, scope: Scope) -> None:
        optional = (*PROCESS_ATTRIBUTES, "name", "args", "shell")
        taken = take(element, scope, "cmd", optional=optional, children=("env",))
        line = f"{element.get('cmd', '')} {element.get('args', '')}".strip()
        if truth(taken.get("shell", "false"), "shell"):
            command: tuple[str, ...] = ("/bin/sh", "-c", embedded_shell_line(expand(line, scope)))
        else:
            command = embedded_command([expand(word, scope) for word in split_words(line)])
        if not command:
            raise UserError("attribute 'cmd' is empty")
        name = taken.get("name") or Path(expand(split_words(line)[0], scope)).name
        self._add(name, command, taken, element, scope)

    def _node(self, element: Element, scope: Scope) -> None:
        optional = (*PROCESS_ATTRIBUTES, "name", "namespace", "args", "ros_args", "exec_name")
        taken = take(element, scope, "pkg", "exec", optional=optional, children=("param", "remap", "env"))
        find_executable(taken["pkg"], taken["exec"])
        arguments = [expand(word, scope) for word in split_words(element.get("args", ""))]
        ros = [expand(word, scope) for word in split_words(element.get("ros_args", ""))]
        if taken.get("name"):
            ros += ["-r", f"__node:={taken['name']}"]
        namespace = join_namespaces(scope.namespace, taken.get("namespace", ""))
        if namespace:
            ros += ["-r", f"__ns:={namespace}"]
        for name, value in scope.parameters:
            ros += ["-p", f"{name}:={value}"]
        whole_name = f"{namespace.rstrip('/')}/{taken['name']}" if namespace and taken.get("name") else "/**"
        for file in self.parameter_files.of(element, scope, whole_name):
            ros += ["--params-file", str(file)]
        for item in element.iter("remap"):
            pair = take(item, scope, "from", "to")
            ros += ["-r", f"{pair['from']}:={pair['to']}"]
        command = (*EMBEDDED, "run", taken["pkg"], taken["exec"], *arguments, *(["--ros-args", *ros] if ros else []))
        self._add(taken.get("exec_name", taken["exec"]), command, taken, element, scope)

    def _add(self, name: str, command: tuple[str, ...], taken: dict[str, str], element: Element, scope: Scope) -> None:
        environment = dict(scope.environment)
        for item in element.iter("env"):
            pair = take(item, scope, "name", "value")
            environment[pair["name"]] = pair["value"]
        on_exit = taken.get("on_exit", "ignore")
        if on_exit not in ("ignore", "shutdown"):
            raise UserError(f"on_exit='{on_exit}': must be 'shutdown' (or absent)")
        respawn = truth(taken.get("respawn", "false"), "respawn")
        try:
            delay = float(taken.get("respawn_delay", "0"))
        except ValueError:
            delay = -1.0
        if not delay >= 0:
            raise UserError(f"respawn_delay='{taken['respawn_delay']}': must be 0 or more seconds")
        prefix = shlex.split(taken.get("launch-prefix", ""))
        self.processes.append(
            Process(
                name=f"{name}-{len(self.processes) + 1}",
                command=(*prefix, *command),
                environment=environment,
                folder=taken.get("cwd"),
                respawn_delay=delay if respawn else None,
                shutdown_on_exit=on_exit == "shutdown",
            )
        )
