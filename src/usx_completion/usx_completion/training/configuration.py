"""Configurations: YAML files read into frozen dataclasses, with the bad key and value named."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from usx_common.errors import UsxError

T = TypeVar("T")
PACKAGED = Path(__file__).parents[1] / "configs"
LARGEST_FILE_BYTES = 2**20
LARGEST_NUMBER = 1e15  # of any setting; what a setting's own bounds are is said by its class
_shown = reprlib.Repr()  # a value may be a whole section
_shown.maxstring = _shown.maxother = 100


def find_configuration(name: str) -> Path:
    """Path of a packaged configuration by its name ("paper"), or of a file. Raises UsxError where there is neither."""
    known = sorted(path.stem for path in PACKAGED.glob("*.yaml") if "model" in read_configuration(path))
    if name in known:
        return PACKAGED / f"{name}.yaml"
    path = Path(name)
    if not path.is_file():
        raise UsxError(f"configuration {name!r} is no file and not one of the packaged {', '.join(known)}")
    return path


def read_configuration(path: Path) -> dict[str, Any]:
    """Content of a YAML file: text keys on the top. Raises UsxError where it is something else."""
    if path.stat().st_size > LARGEST_FILE_BYTES:
        raise UsxError(f"{path} has {path.stat().st_size} bytes; a configuration has less than {LARGEST_FILE_BYTES}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError, ValueError) as error:
        raise UsxError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsxError(f"{path} must hold sections by name")
    return content


def build(kind: type[T], values: Any, where: str) -> T:
    """A frozen dataclass from a mapping of its fields; those not named keep their defaults.

    ``where`` names the place in messages. Raises UsxError naming the key, the value that does not fit, and what is
    needed.
    """
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise UsxError(f"{where} = {_shown.repr(values)} must hold keys and values: some of "
                       + ", ".join(each.name for each in fields(kind)))  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UsxError(f"{where}: {_shown.repr(key)} is unknown; known are {', '.join(known)}")
    for each in fields(kind):  # type: ignore[arg-type]
        if each.name not in values and each.default is MISSING and each.default_factory is MISSING:
            raise UsxError(f"{where} = {_shown.repr(dict(values))} lacks {each.name!r}")
    made = {key: _converted(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    try:
        return kind(**made)
    except (UsxError, TypeError, ValueError, ArithmeticError) as error:
        raise UsxError(f"{where}: {error}") from error


def as_text(settings: Any) -> str:
    """Settings as one line of JSON, keys sorted."""
    return json.dumps(asdict(settings), sort_keys=True)


def _converted(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        return build(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        return _tuple(hint, value, where)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and not abs(value) <= LARGEST_NUMBER:  # nan, too
        raise UsxError(f"{where} = {_shown.repr(value)} must be a number within -{LARGEST_NUMBER:g} .. "
                       f"{LARGEST_NUMBER:g}")
    if hint is float and number:
        return float(value)
    if type(value) is not hint:
        raise UsxError(f"{where} = {_shown.repr(value)} must be of type {getattr(hint, '__name__', hint)}")
    return value


def _tuple(hint: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise UsxError(f"{where} = {_shown.repr(value)} must be a list")
    inner = get_args(hint)
    kinds = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is Ellipsis else list(inner)
    if len(kinds) != len(value):
        raise UsxError(f"{where} = {_shown.repr(value)} must have {len(kinds)} entries")
    return tuple(_converted(kind, entry, f"{where}[{n}]") for n, (kind, entry) in enumerate(zip(kinds, value,
                                                                                              strict=True)))
