"""Substitutions of launch files: `$(var x)`, `$(env X default)`, `$(find-pkg-share pkg)`, `$(dirname)`; they nest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from usx_runtime.ament_index_python import PackageNotFoundError, get_package_prefix, get_package_share_directory
from usx_runtime.user_error import UserError


@dataclass
class Scope:
    """What a line of a launch file sees. A `<group>` gets a copy of its own."""

    file: Path
    variables: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    parameters: list[tuple[str, str]] = field(default_factory=list)
    namespace: str = ""

    def inner(self) -> Scope:
        """A copy: changes made in it stay in it."""
        return replace(
            self,
            variables=dict(self.variables),
            environment=dict(self.environment),
            parameters=list(self.parameters),
        )


def expand(text: str, scope: Scope) -> str:
    """`text` with every substitution performed.

    Raises UserError for an unknown or unfinished substitution, or a variable without a value."""
    parts = []
    position = 0
    while position < len(text):
        if text.startswith("\\$", position):
            parts.append("$")
            position += 2
        elif text.startswith("$(", position):
            end = _closing(text, position)
            parts.append(_perform(text[position + 2 : end], scope))
            position = end + 1
        else:
            parts.append(text[position])
            position += 1
    return "".join(parts)


def split_words(text: str) -> list[str]:
    """Words of a command line, unexpanded: blanks inside quotes or `$(...)` do not separate.

    Quotes are dropped, except within `$(...)`, where they still have a meaning."""
    words: list[str] = []
    word: list[str] = []
    started = False
    quote = ""
    position = 0
    while position < len(text):
        character = text[position]
        if text.startswith("$(", position):
            end = _closing(text, position)
            word.append(text[position : end + 1])
            started, position = True, end
        elif quote or character in "'\"":
            if not quote:
                quote, started = character, True
            elif character == quote:
                quote = ""
            else:
                word.append(character)
        elif character.isspace():
            if started:
                words.append("".join(word))
            word, started = [], False
        else:
            word.append(character)
            started = True
        position += 1
    if quote:
        raise UserError(f"no closing quotation in '{text}'")
    if started:
        words.append("".join(word))
    return words


def _closing(text: str, start: int) -> int:
    """Position of the parenthesis that ends the substitution which begins at `start`."""
    depth = 0
    quote = ""
    for position in range(start + 1, len(text)):
        character = text[position]
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth == 0:
                return position
    raise UserError(f"'{text[start:]}': the substitution has no closing parenthesis")


def _perform(inside: str, scope: Scope) -> str:
    name, *arguments = split_words(inside) or [""]
    perform = SUBSTITUTIONS.get(name)
    if perform is None:
        known = ", ".join(f"$({key})" for key in SUBSTITUTIONS)
        raise UserError(f"substitution '$({inside})' is not supported by the embedded launch; it knows {known}")
    return perform([expand(argument, scope) for argument in arguments], scope)


def _variable(arguments: list[str], scope: Scope) -> str:
    name, *default = _count(arguments, 1, 2, "var NAME [DEFAULT]")
    if name in scope.variables:
        return scope.variables[name]
    if default:
        return default[0]
    raise UserError(f"$(var {name}): there is no argument or variable '{name}' at this place of the file")


def _environment(arguments: list[str], scope: Scope) -> str:
    name, *default = _count(arguments, 1, 2, "env NAME [DEFAULT]")
    if name in scope.environment:
        return scope.environment[name]
    if default:
        return default[0]
    raise UserError(f"$(env {name}): environment variable '{name}' is not set, and no default is given")


def _package(find: Callable[[str], str], usage: str) -> Callable[[list[str], Scope], str]:
    def perform(arguments: list[str], scope: Scope) -> str:
        (name,) = _count(arguments, 1, 1, usage)
        try:
            return find(name)
        except (PackageNotFoundError, ValueError) as error:
            raise UserError(str(error)) from None

    return perform


def _count(arguments: list[str], least: int, most: int, usage: str) -> list[str]:
    if not least <= len(arguments) <= most:
        raise UserError(f"$({usage}) got {len(arguments)} arguments: {arguments}")
    return arguments


SUBSTITUTIONS: dict[str, Callable[[list[str], Scope], str]] = {
    "var": _variable,
    "env": _environment,
    "find-pkg-share": _package(get_package_share_directory, "find-pkg-share PACKAGE"),
    "find-pkg-prefix": _package(get_package_prefix, "find-pkg-prefix PACKAGE"),
    "dirname": lambda arguments, scope: str(scope.file.parent),
    "filename": lambda arguments, scope: str(scope.file),
}
