"""The transform buffer: what tf2's BufferCore and tf2_ros' Buffer do, for what the nodes use of it."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from threading import Condition
from typing import Any

from usx_runtime import messages
from usx_runtime.rclpy.duration import Duration
from usx_runtime.rclpy.logging import get_logger
from usx_runtime.rclpy.time import Time
from usx_runtime.tf2_ros.edges import DynamicEdge, StaticEdge, seconds
from usx_runtime.tf2_ros.exceptions import (
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TransformException,
)
from usx_runtime.tf2_ros.rigid import IDENTITY, Rigid, compose, inverse, normalized

MAX_DEPTH = 1000
QUATERNION_TOLERANCE = 1e-2
NO_WAIT = Duration()
LOGGER = get_logger("tf2")


class Buffer:
    """Stores transforms and answers where one frame was in another at a time. Thread-safe.

    With `node`, a backward jump of that node's clock empties it (static transforms stay, as in tf2)."""

    def __init__(self, cache_time: Duration | None = None, node: Any = None) -> None:
        self.cache_ns = 10 * 10**9 if cache_time is None else cache_time.nanoseconds
        self._edges: dict[str, StaticEdge | DynamicEdge] = {}
        self._known: set[str] = set()
        self._changed = Condition()
        self._jump_handle: object = None
        if node is not None:
            self.watch_clock(node.get_clock())

    def watch_clock(self, clock: Any) -> None:
        """Clear this buffer whenever `clock` jumps back or changes its source."""
        if self._jump_handle is not None:
            return
        from usx_runtime.rclpy.clock import JumpThreshold

        threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jump_handle = clock.create_jump_callback(threshold, post_callback=lambda jump: self.clear())

    # ---- filling

    def set_transform(self, transform: Any, authority: str) -> bool:
        """Store a geometry_msgs/TransformStamped; False (and an error is logged) where it makes no sense."""
        return self._store(transform, authority, static=False)

    def set_transform_static(self, transform: Any, authority: str) -> bool:
        """Store a transform that holds at every time."""
        return self._store(transform, authority, static=True)

    def _store(self, message: Any, authority: str, static: bool) -> bool:
        parent, child = message.header.frame_id.lstrip("/"), message.child_frame_id.lstrip("/")
        rigid = _rigid(message.transform)
        problem = _problem(parent, child, rigid)
        if problem:
            LOGGER.error(f"Ignoring transform from authority '{authority}': {problem}")
            return False
        rigid = (rigid[0], normalized(rigid[1]))
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        with self._changed:
            edge = self._edges.get(child)
            if edge is None:
                edge = StaticEdge(parent, rigid, authority) if static else DynamicEdge(self.cache_ns, authority)
                self._edges[child] = edge
            if not edge.insert(stamp, parent, rigid):
                LOGGER.warning(
                    f"TF_OLD_DATA ignoring data from the past for frame {child} at time {seconds(stamp)}",
                    throttle_duration_sec=10.0,
                )
                return False
            self._known.update((parent, child))
            self._changed.notify_all()
        return True

    def clear(self) -> None:
        """Forget every transform that is not static."""
        with self._changed:
            for edge in self._edges.values():
                edge.clear()

    # ---- asking

    def lookup_transform(self, target_frame: str, source_frame: str, time: Time, timeout: Duration = NO_WAIT) -> Any:
        """TransformStamped that maps points of `source_frame` into `target_frame` at `time` (Time() = latest common).

        Waits up to `timeout` for it; the waiting thread must not be the one that runs the listener's callbacks.
        Raises LookupException, ConnectivityException, ExtrapolationException, InvalidArgumentException."""
        stamp, rigid = self._waiting(lambda: self._lookup(target_frame, source_frame, time.nanoseconds), timeout)
        return _message(target_frame, source_frame, stamp, rigid)

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = NO_WAIT,
    ) -> Any:
        """Where `source_frame` at `source_time` was in `target_frame` at `target_time`, joined by `fixed_frame`."""

        def attempt() -> tuple[int, Rigid]:
            _, source_to_fixed = self._lookup(fixed_frame, source_frame, source_time.nanoseconds)
            stamp, fixed_to_target = self._lookup(target_frame, fixed_frame, target_time.nanoseconds)
            return stamp, compose(fixed_to_target, source_to_fixed)

        stamp, rigid = self._waiting(attempt, timeout)
        return _message(target_frame, source_frame, stamp, rigid)

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = NO_WAIT,
        return_debug_tuple: bool = False,
    ) -> bool | tuple[bool, str]:
        """Whether `lookup_transform` would answer; with `return_debug_tuple` also why not."""
        reason = ""
        try:
            self._waiting(lambda: self._lookup(target_frame, source_frame, time.nanoseconds), timeout)
        except TransformException as error:
            reason = str(error)
        return (not reason, reason) if return_debug_tuple else not reason

    def get_latest_common_time(self, target_frame: str, source_frame: str) -> Time:
        """Latest time at which the whole chain between two frames is known; Time() where it is all static."""
        with self._changed:
            return Time(nanoseconds=self._latest_common(target_frame, source_frame))

    def all_frames_as_yaml(self) -> str:
        """One YAML mapping entry a frame, with its parent, broadcaster and times."""
        lines = []
        with self._changed:
            for child, edge in self._edges.items():
                if not len(edge):
                    continue
                span = (edge.latest - edge.oldest) / 1e9
                lines += [
                    f"{child}: ",
                    f"  parent: '{edge.parent}'",
                    f"  broadcaster: '{edge.authority}'",
                    f"  rate: {(len(edge) / max(span, 1e-4)) if not edge.is_static else 10000:.3f}",
                    f"  most_recent_transform: {edge.latest / 1e9:.6f}",
                    f"  oldest_transform: {edge.oldest / 1e9:.6f}",
                    f"  buffer_length: {span:.3f}",
                ]
        return "\n".join(lines) + "\n" if lines else "[]"

    def all_frames_as_string(self) -> str:
        with self._changed:
            edges = [(child, edge.parent) for child, edge in self._edges.items() if len(edge)]
        return "".join(f"Frame {child} exists with parent {parent}.\n" for child, parent in edges)

    # ---- how

    def _waiting(self, attempt: Callable[[], tuple[int, Rigid]], timeout: Duration) -> tuple[int, Rigid]:
        answer: list[tuple[int, Rigid]] = []

        def ready() -> bool:
            try:
                answer.append(attempt())
            except (LookupException, ConnectivityException, ExtrapolationException):
                return False
            return True

        with self._changed:
            if timeout.nanoseconds > 0 and self._changed.wait_for(ready, timeout.nanoseconds / 1e9):
                return answer[0]
            return attempt()

    def _lookup(self, target: str, source: str, stamp: int) -> tuple[int, Rigid]:
        for role, frame in (("target_frame", target), ("source_frame", source)):
            self._check_frame(role, frame)
        if target == source:
            edge = self._edges.get(target)
            return (stamp or (edge.latest if edge is not None else 0)), IDENTITY
        if stamp == 0:
            stamp = self._latest_common(target, source)
        return stamp, self._join(target, source, stamp)

    def _check_frame(self, role: str, frame: str) -> None:
        if not frame:
            raise InvalidArgumentException(
                f"Invalid argument passed to lookupTransform argument {role}: frame_id is empty"
            )
        if frame.startswith("/"):
            raise InvalidArgumentException(
                f"Invalid argument '{frame}' passed to lookupTransform argument {role}: "
                "in tf2 frame_ids cannot start with a '/'"
            )
        if frame not in self._known:
            raise LookupException(f'"{frame}" passed to lookupTransform argument {role} does not exist. ')

    def _join(self, target: str, source: str, stamp: int) -> Rigid:
        """Transform from source to target through their nearest common ancestor at `stamp`."""
        source_chain, source_stop = self._climb(source, stamp, until={target})
        if target in source_chain:
            return source_chain[target]
        target_chain, target_stop = self._climb(target, stamp, until=source_chain.keys())
        top = next(reversed(target_chain))
        if top in source_chain:
            return compose(inverse(target_chain[top]), source_chain[top])
        stopped = source_stop or target_stop
        if stopped is not None:
            raise ExtrapolationException(
                f"{stopped}, when looking up transform from frame [{source}] to frame [{target}]"
            )
        raise _unconnected(target, source)

    def _climb(self, frame: str, stamp: int, until: Any) -> tuple[dict[str, Rigid], ExtrapolationException | None]:
        """{ancestor: transform from `frame` to it}, and what stopped the climb if that was a time out of range."""
        chain = {frame: IDENTITY}
        rigid = IDENTITY
        for _ in range(MAX_DEPTH):
            edge = self._edges.get(frame)
            if edge is None or not len(edge) or frame in until:
                return chain, None
            try:
                frame, step = edge.at(stamp)
            except ExtrapolationException as error:
                return chain, error
            rigid = compose(step, rigid)
            chain[frame] = rigid
        raise LookupException("The tf tree is invalid because it contains a loop.")

    def _latest_common(self, target: str, source: str) -> int:
        source_times = self._latest_times(source)
        target_times = self._latest_times(target)
        common = next((frame for frame in target_times if frame in source_times), None)
        if common is None:
            raise _unconnected(target, source)
        times = [time for time in (source_times[common], target_times[common]) if time]
        return min(times, default=0)

    def _latest_times(self, frame: str) -> dict[str, int]:
        """{ancestor: the earliest of the latest times on the way to it, 0 where the way is static}."""
        times = {frame: 0}
        latest = 0
        for _ in range(MAX_DEPTH):
            edge = self._edges.get(frame)
            if edge is None or not len(edge):
                return times
            if edge.latest:
                latest = min(latest or edge.latest, edge.latest)
            frame = edge.parent
            times[frame] = latest
        raise LookupException("The tf tree is invalid because it contains a loop.")


def _unconnected(target: str, source: str) -> ConnectivityException:
    return ConnectivityException(
        f"Could not find a connection between '{target}' and '{source}' because they are not part of the same tree. "
        "Tf has two or more unconnected trees."
    )


def _rigid(transform: Any) -> Rigid:
    t, q = transform.translation, transform.rotation
    return (t.x, t.y, t.z), (q.x, q.y, q.z, q.w)


def _problem(parent: str, child: str, rigid: Rigid) -> str:
    if not child:
        return "TF_NO_CHILD_FRAME_ID: child_frame_id not set"
    if not parent:
        return f"TF_NO_FRAME_ID: frame_id not set, child_frame_id '{child}'"
    if parent == child:
        return f"TF_SELF_TRANSFORM: frame_id and child_frame_id '{child}' are the same"
    if not all(map(isfinite, rigid[0] + rigid[1])):
        return f"TF_NAN_INPUT: child_frame_id '{child}' has a nan or infinite value {rigid}"
    if abs(sum(v * v for v in rigid[1]) - 1.0) > QUATERNION_TOLERANCE:
        return f"TF_DENORMALIZED_QUATERNION: child_frame_id '{child}' has the quaternion {rigid[1]}"
    return ""


def _message(target: str, source: str, stamp: int, rigid: Rigid) -> Any:
    message = messages.get_message("geometry_msgs/msg/TransformStamped")()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    message.header.frame_id = target
    message.child_frame_id = source
    t, q = message.transform.translation, message.transform.rotation
    (t.x, t.y, t.z), (q.x, q.y, q.z, q.w) = rigid
    return message
