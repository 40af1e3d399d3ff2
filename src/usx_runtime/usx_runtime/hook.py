"""The switch between a real ROS 2 and this package: an import hook that stands in for rclpy and its companions.

All or nothing: where a real rclpy can be found nothing is mapped, because half of one runtime and half of the
other would exchange objects that neither understands. Environment variable USX_ROS=real|embedded forces one.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

STAND_INS = {name: f"{__package__}.{name}" for name in ("rclpy", "tf2_ros", "message_filters", "ament_index_python")}
MESSAGE_PACKAGE = re.compile(r"[a-z0-9_]+_(msgs|srvs|interfaces)$")


class RuntimeChoiceError(ImportError):
    """Neither runtime can be used as things are; the message says what to do."""


class _PackageAlias(ModuleType):
    """A package under a second name. Its `__path__` is empty, so that no other finder loads its submodules twice."""

    def __init__(self, name: str, target: ModuleType) -> None:
        super().__init__(name, target.__doc__)
        self.__dict__.update(_target=target, __path__=[])

    def __getattr__(self, name: str) -> object:
        return getattr(self.__dict__["_target"], name)

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("__") or isinstance(value, ModuleType):
            self.__dict__[name] = value
        else:
            setattr(self.__dict__["_target"], name, value)

    def __dir__(self) -> list[str]:
        return sorted(set(dir(self.__dict__["_target"])) | set(self.__dict__))


class _StandInLoader(Loader):
    """Hands out a module that is loaded already under its own name."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.own_spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        if self.own_spec is not None:  # the import system has just replaced it
            module.__spec__ = self.own_spec


class _StandInFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, _, rest = fullname.partition(".")
        if top in STAND_INS:
            module = _stand_in(fullname, STAND_INS[top] + (f".{rest}" if rest else ""))
        elif MESSAGE_PACKAGE.match(top):
            from usx_runtime import messages

            module = messages.module_for(fullname)
        else:
            return None
        if module is None:
            return None
        spec = ModuleSpec(fullname, _StandInLoader(module), is_package="__path__" in vars(module) or not rest)
        spec.has_location = False
        return spec


def _stand_in(fullname: str, own_name: str) -> ModuleType | None:
    try:
        module = importlib.import_module(own_name)
    except ModuleNotFoundError as error:
        if error.name != own_name:
            raise
        raise ModuleNotFoundError(
            f"No module named '{fullname}': the embedded ROS 2 runtime does not have it", name=fullname
        ) from None
    return _PackageAlias(fullname, module) if hasattr(module, "__path__") else module


def active() -> bool:
    """Whether rclpy and its companions are this package's."""
    return any(isinstance(finder, _StandInFinder) for finder in sys.meta_path)


def forced() -> str:
    """The value of USX_ROS: "real", "embedded" or "" (decide by what is installed).

    Raises RuntimeChoiceError for any other value."""
    value = os.environ.get("USX_ROS", "")
    if value not in ("", "real", "embedded"):
        raise RuntimeChoiceError(f"USX_ROS={value}: must be 'real' or 'embedded' (or unset)")
    return value


def real_location(name: str = "rclpy") -> str | None:
    """Where a real module `name` would be imported from, or None."""
    for finder in sys.meta_path:
        if isinstance(finder, _StandInFinder) or not hasattr(finder, "find_spec"):
            continue
        spec = finder.find_spec(name, None)
        if spec is not None and spec.origin is not None:  # no origin: a mere folder of that name
            return str(spec.origin)
    return None


def uses_real() -> bool:
    """Whether a real ROS 2 is to be used, as USX_ROS and the installed packages say."""
    choice = forced()
    return choice == "real" or (choice == "" and real_location() is not None)


def install() -> None:
    """Make `import rclpy` work: leave it to a real ROS 2 where there is one, else map it to this package.

    Calling it again changes nothing. Raises RuntimeChoiceError where a real rclpy is found, or demanded by
    USX_ROS=real, but cannot be imported."""
    if active():
        return
    if uses_real():
        _check_real()
        return
    shadowed = any(real_location(name) for name in (*STAND_INS, "std_msgs", "builtin_interfaces"))
    sys.meta_path.insert(0 if shadowed else len(sys.meta_path), _StandInFinder())


def _check_real() -> None:
    location = real_location()
    if location is None:
        raise RuntimeChoiceError(
            "USX_ROS=real, but no rclpy can be found: source the set-up file of a ROS 2 distribution first"
        )
    try:
        importlib.import_module("rclpy")
    except ImportError as error:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise RuntimeChoiceError(
            f"A real rclpy was found ({location}) but does not import in Python {version}: {error}. "
            "Use the Python version of that ROS 2 distribution, or open a shell without it sourced, "
            "or set USX_ROS=embedded to use the embedded runtime."
        ) from error
