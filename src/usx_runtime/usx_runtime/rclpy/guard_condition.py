"""rclpy.guard_condition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class GuardCondition:
    """Runs its callback in the executor after trigger(), which any thread may call."""

    def __init__(self, node: Any, callback: Callable[[], Any] | None, callback_group: Any) -> None:
        self.node, self.callback, self.callback_group = node, callback, callback_group
        self._triggered = False
        callback_group.add_entity(self)

    def trigger(self) -> None:
        self._triggered = True
        self.node.wake_executor()

    def is_ready(self) -> bool:
        return self._triggered

    def take(self) -> Callable[[], Any] | None:
        if not self._triggered:
            return None
        self._triggered = False
        return self.callback

    def destroy(self) -> None:
        self.node.destroy_guard_condition(self)
