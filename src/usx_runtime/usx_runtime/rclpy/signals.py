"""rclpy.signals: SIGINT and SIGTERM shut the contexts down, then do what they did before."""

from __future__ import annotations

import signal
import threading
from enum import IntEnum
from typing import Any


class SignalHandlerOptions(IntEnum):
    """Which signals init() handles."""

    NO = 0
    SIGINT = 1
    SIGTERM = 2
    ALL = 3


_PREVIOUS: dict[int, Any] = {}
_CONTEXTS: list[Any] = []
_SIGNALS = ((signal.SIGINT, SignalHandlerOptions.SIGINT), (signal.SIGTERM, SignalHandlerOptions.SIGTERM))


def _handle(number: int, frame: Any) -> None:
    previous = _PREVIOUS.get(number)
    for context in list(_CONTEXTS):
        context.try_shutdown()
    if callable(previous):
        previous(number, frame)


def install_signal_handlers(options: SignalHandlerOptions, context: Any) -> None:
    """Handles the signals of `options` until `context` is shut down; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread() or options is SignalHandlerOptions.NO:
        return
    _CONTEXTS.append(context)
    for number, option in _SIGNALS:
        if options & option and signal.getsignal(number) is not _handle:
            _PREVIOUS[number] = signal.signal(number, _handle)
    context.on_shutdown(lambda: _forget(context))


def _forget(context: Any) -> None:
    if context in _CONTEXTS:
        _CONTEXTS.remove(context)
    if not _CONTEXTS:
        uninstall_signal_handlers()


def uninstall_signal_handlers() -> None:
    """Puts back what handled the signals before."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in list(_PREVIOUS):
        previous = _PREVIOUS.pop(number)
        if signal.getsignal(number) is _handle:
            signal.signal(number, previous)
