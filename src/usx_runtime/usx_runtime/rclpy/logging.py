"""rclpy.logging: severities, console format and throttling of ROS 2; written to the standard error stream.

Honours RCUTILS_CONSOLE_OUTPUT_FORMAT, RCUTILS_COLORIZED_OUTPUT and the ROS argument --log-level.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
import time
from enum import IntEnum
from typing import Any

from usx_runtime.rclpy.clock import Clock
from usx_runtime.rclpy.clock_type import ClockType

_DEFAULT_FORMAT = "[{severity}] [{time}] [{name}]: {message}"
_COLOURS = {10: "\033[32m", 20: "\033[0m", 30: "\033[33m", 40: "\033[31m", 50: "\033[31m"}
_LOCK = threading.RLock()  # a signal handler may log while its own thread does
_LEVELS: dict[str, int] = {}


class LoggingSeverity(IntEnum):
    UNSET = 0
    DEBUG = 10
    INFO = 20
    WARN = 30
    ERROR = 40
    FATAL = 50


def get_logging_severity_from_string(log_severity: str) -> LoggingSeverity:
    """Of "info", "WARN", ...; raises RuntimeError for another word."""
    try:
        return LoggingSeverity[log_severity.upper()]
    except KeyError:
        raise RuntimeError(f"log level {log_severity!r}: must be one of debug, info, warn, error, fatal") from None


def set_logger_level(name: str, level: int, detailed_error: bool = False) -> None:
    """Least severity that logger `name` ("" for all) and those below it show."""
    _LEVELS[name] = int(level)


def get_logger_effective_level(name: str) -> LoggingSeverity:
    """The level set for a logger or for the nearest one above it."""
    while name:
        if _LEVELS.get(name):
            return LoggingSeverity(_LEVELS[name])
        name = name.rpartition(".")[0]
    return LoggingSeverity(_LEVELS.get("", 0) or LoggingSeverity.INFO)


def clear_levels() -> None:
    _LEVELS.clear()


def _coloured() -> bool:
    wish = os.environ.get("RCUTILS_COLORIZED_OUTPUT", "")
    return wish == "1" if wish else sys.stderr.isatty()


def _write(name: str, severity: LoggingSeverity, message: str, caller: Any) -> None:
    form = os.environ.get("RCUTILS_CONSOLE_OUTPUT_FORMAT") or _DEFAULT_FORMAT
    now = time.time_ns()
    fields = {"{severity}": severity.name, "{name}": name, "{time}": f"{now // 10**9}.{now % 10**9:09d}",
              "{time_as_nanoseconds}": str(now), "{file_name}": caller.f_code.co_filename,
              "{function_name}": caller.f_code.co_name, "{line_number}": str(caller.f_lineno)}
    for key, value in fields.items():
        form = form.replace(key, value)
    line = form.replace("{message}", message)
    if _coloured():
        line = f"{_COLOURS[severity]}{line}\033[0m"
    try:
        with _LOCK:
            print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):  # nobody listens any more: the parent that read the pipe is gone
        pass


class RcutilsLogger:
    """A named logger; `get_child` gives loggers below it."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._last: dict[Any, int] = {}

    def get_child(self, name: str) -> RcutilsLogger:
        if not name:
            raise ValueError("Child logger name must not be empty.")
        return RcutilsLogger(f"{self.name}.{name}" if self.name else name)

    def set_level(self, level: int) -> None:
        set_logger_level(self.name, LoggingSeverity(level))

    def get_effective_level(self) -> LoggingSeverity:
        return get_logger_effective_level(self.name)

    def is_enabled_for(self, severity: int) -> bool:
        return severity >= self.get_effective_level()

    def log(self, message: Any, severity: int, name: str | None = None, **kwargs: Any) -> bool:
        """Writes `message`. `once`, `skip_first`, `throttle_duration_sec` (with `throttle_time_source_type`, a clock)
        belong to the line of code that calls."""
        unknown = set(kwargs) - {"once", "skip_first", "throttle_duration_sec", "throttle_time_source_type"}
        if unknown:
            raise TypeError(f"unknown logging arguments {sorted(unknown)}")
        severity = LoggingSeverity(severity)
        if not self.is_enabled_for(severity):
            return False
        caller: Any = inspect.currentframe()
        while caller.f_back is not None and caller.f_code.co_filename == __file__:
            caller = caller.f_back
        if kwargs and not self._passes((caller.f_code.co_filename, caller.f_lineno), kwargs):
            return False
        _write(name or self.name, severity, str(message), caller)
        return True

    def _passes(self, place: tuple[str, int], rules: dict[str, Any]) -> bool:
        clock = rules.get("throttle_time_source_type") or Clock(clock_type=ClockType.STEADY_TIME)
        now, last = clock.now_ns(), self._last.get(place)
        period = int(float(rules.get("throttle_duration_sec", 0)) * 1e9)
        if last is None:
            self._last[place] = now
            return not rules.get("skip_first", False)
        if rules.get("once") or (period and 0 <= now - last < period):
            return False
        self._last[place] = now
        return True

    def debug(self, message: Any, **kwargs: Any) -> bool:
        return self.log(message, LoggingSeverity.DEBUG, **kwargs)

    def info(self, message: Any, **kwargs: Any) -> bool:
        return self.log(message, LoggingSeverity.INFO, **kwargs)

    def warning(self, message: Any, **kwargs: Any) -> bool:
        return self.log(message, LoggingSeverity.WARN, **kwargs)

    warn = warning

    def error(self, message: Any, **kwargs: Any) -> bool:
        return self.log(message, LoggingSeverity.ERROR, **kwargs)

    def fatal(self, message: Any, **kwargs: Any) -> bool:
        return self.log(message, LoggingSeverity.FATAL, **kwargs)


def get_logger(name: str) -> RcutilsLogger:
    if not name:
        raise ValueError("Logger name must not be empty.")
    return RcutilsLogger(name)
