"""The life of sweeps while frames and poses stream in: begins, updates, ends, saves. No ROS in here.

Other threads only hand things over (`offer_frame`, `offer_pose`, `call`); one worker thread calls `process`, which does
everything else, so nothing here needs a lock but the inbox.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from usx_common.counters import StreamCounters
from usx_common.errors import UsxError
from usx_common.rates import LatencyMeter
from usx_compounding.background_save import BackgroundSave
from usx_compounding.engine import Engine
from usx_compounding.live_settings import LiveSettings, Outputs
from usx_compounding.matching import Decision, FrameMatcher, MatchedFrame, TimedFrame
from usx_compounding.pose_buffer import PoseSample
from usx_compounding.region import VolumeTooLarge
from usx_compounding.sweep import Sweep

Command = Literal["start", "stop", "reset", "save"]
State = Literal["waiting", "sweeping", "ended", "stopped"]
MAX_POSES_WAITING = 20_000


@dataclass
class _Call:
    command: Command
    done: threading.Event = field(default_factory=threading.Event)
    success: bool = False
    message: str = ""

    def answer(self, success: bool, message: str) -> None:
        """Answer once; what comes later is too late."""
        if not self.done.is_set():
            self.success, self.message = success, message
            self.done.set()


class LiveSweep:
    """See the module. ``save``: writes a sweep's volumes and returns a sentence; raises UsxError when it cannot."""

    def __init__(self, settings: LiveSettings, engine: Engine, outputs: Outputs, save: Callable[[Sweep, int], str],
                 frames: StreamCounters, poses: StreamCounters) -> None:
        self.settings = settings
        self._engine, self._outputs, self._saving = engine, outputs, BackgroundSave(save)
        self._frames, self._poses = frames, poses
        self.latency = LatencyMeter()
        self._matcher = FrameMatcher(settings.gates, settings.pose_delay, settings.inbox)
        self._inbox: deque[tuple[float, TimedFrame | PoseSample | _Call]] = deque()
        self._lock = threading.Lock()
        self._frames_inside = self._bytes_inside = 0
        self._arrivals: dict[int, float] = {}
        self._sweep: Sweep | None = None
        self._number = 0
        self.state: State = "waiting"
        self.trouble = ""
        self._published = 0
        self._shown = False  # whether others hold a bone surface of some sweep
        self._closed = False
        self._facts: dict[str, object] = {"sweep": 0, "waiting_for_pose": 0}
        self._still, self._last_facts = 0.0, float("-inf")
        self._last_arrival = self._last_used = self._last_update = self._last_slice = time.monotonic()

    # -- from any thread ------------------------------------------------------------------------------------------

    def offer_frame(self, frame: TimedFrame) -> None:
        """Hand over a frame that was counted as received; it will be counted as used or rejected."""
        with self._lock:
            full = (self._frames_inside >= self.settings.inbox
                    or 0 < self._bytes_inside > self.settings.inbox_bytes - frame.image.nbytes)
            refused = "shutdown" if self._closed else "busy" if full else ""
            if not refused:
                self._frames_inside += 1
                self._bytes_inside += frame.image.nbytes
                self._inbox.append((time.monotonic(), frame))
        if refused:
            self._frames.rejected(refused)

    def offer_pose(self, sample: PoseSample) -> None:
        """Hand over a pose that was counted as received."""
        with self._lock:
            refused = "shutdown" if self._closed else "busy" if len(self._inbox) >= MAX_POSES_WAITING else ""
            if not refused:
                self._inbox.append((time.monotonic(), sample))
        if refused:
            self._poses.rejected(refused)

    def call(self, command: Command, kick: Callable[[], object], timeout: float) -> tuple[bool, str]:
        """Have a command done by the worker (``kick`` wakes it) and wait for the answer: success, a sentence."""
        request = _Call(command)
        with self._lock:
            if self._closed:
                return False, "the node is ending"
            self._inbox.append((time.monotonic(), request))
        kick()
        if not request.done.wait(timeout):
            return False, f"{command} is not finished after {timeout:g} s"
        return request.success, request.message

    @property
    def number(self) -> int:
        """Number of the current or last sweep, from 1; 0 before the first."""
        return self._number

    def facts(self) -> dict[str, object]:
        """Figures for a person who watches, as the worker last noted them."""
        return self._facts

    def still_seconds(self) -> float:
        """How long the poses have repeated one value: a probe at rest, or a frozen tracker; as last noted."""
        return self._still

    # -- worker thread --------------------------------------------------------------------------------------------

    def process(self) -> None:
        """Do all that is due: frames and poses in order of arrival, commands, updates, the end of a sweep."""
        while True:
            with self._lock:
                if not self._inbox:
                    break
                arrival, item = self._inbox.popleft()
                if isinstance(item, TimedFrame):
                    self._frames_inside -= 1
                    self._bytes_inside -= item.image.nbytes
            if isinstance(item, _Call):
                self._answer(item)
            elif isinstance(item, TimedFrame):
                self._take_frame(item, arrival)
            else:
                self._take_pose(item)
            self._update(force=False)
            self._note_facts()
        self._end_when_idle()
        self._update(force=False)
        self._note_facts()

    def close(self) -> None:
        """Account for what is left when the node ends."""
        with self._lock:
            left = [item for _, item in self._inbox]
            self._inbox.clear()
            self._closed = True
        for item in left:
            if isinstance(item, TimedFrame):
                self._frames.rejected("shutdown")
            elif isinstance(item, PoseSample):
                self._poses.rejected("shutdown")
            else:
                item.answer(False, "the node is ending")
        self._settle(self._matcher.give_up("shutdown"))
        self._saving.close()

    def _take_frame(self, frame: TimedFrame, arrival: float) -> None:
        self._last_arrival = time.monotonic()
        if self.settings.sweep is None:
            self._frames.rejected("no_calibration")
            return
        self._arrivals[id(frame)] = arrival
        jumped, decisions = self._matcher.add_frame(frame)
        if jumped:
            self._end("time was set back")
        self._settle(decisions)

    def _take_pose(self, sample: PoseSample) -> None:
        self._last_arrival = time.monotonic()
        insertion, decisions = self._matcher.add_pose(sample)
        if insertion in ("added", "jumped_back"):
            self._poses.used()
        else:
            self._poses.rejected(insertion)
        if insertion == "jumped_back":
            self._end("time was set back")
        self._settle(decisions)

    def _settle(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            arrival = self._arrivals.pop(id(decision.frame), None)
            reason = self._use(decision) if isinstance(decision, MatchedFrame) else decision.reason
            if reason:
                self._frames.rejected(reason)
                continue
            self._frames.used()
            if arrival is not None:
                self.latency.add(time.monotonic() - arrival)
            if isinstance(decision, MatchedFrame):
                self._show_slice(decision)

    def _use(self, matched: MatchedFrame) -> str:
        """Compound a frame; why it could not be, or ""."""
        if self.state == "stopped":
            return "stopped"
        try:
            if self.state != "sweeping" or self._sweep is None:
                self._begin(matched)
            assert self._sweep is not None
            if matched.frame.image.shape != self._sweep.shape:
                return "size_changed"
            self._sweep.add(matched)
        except VolumeTooLarge as error:
            self.trouble = str(error)
            return "memory_limit"
        except UsxError as error:
            self.trouble = str(error)
            return "not_compounded"
        except Exception as error:  # no memory, a fault of the engine: this frame is lost, the others need not be
            self.trouble = f"a frame could not be compounded: {error!r}"
            return "internal_error"
        self.trouble = ""
        self._last_used = time.monotonic()
        return ""

    def _begin(self, matched: MatchedFrame) -> None:
        assert self.settings.sweep is not None
        self._sweep = Sweep(self.settings.sweep, self._engine, matched.frame.image.shape)  # type: ignore[arg-type]
        self._number += 1
        self._published = 0
        self._last_update = time.monotonic()
        self.state = "sweeping"
        self._clear(matched.frame.stamp)

    def _end(self, why: str) -> None:
        """End the sweep, its last update published; its volume stays for saving until the next one begins."""
        if self.state == "sweeping":
            self._update(force=True)
            self.state = "ended"

    def _end_when_idle(self) -> None:
        now = time.monotonic()
        if now - self._last_arrival >= self.settings.idle_timeout:
            self._settle(self._matcher.give_up("no_later_pose"))
        if now - self._last_used >= self.settings.idle_timeout:
            self._end("no frame")

    def _update(self, force: bool) -> None:
        """Publish bone and coverage when frames came since the last time and the period is over."""
        sweep = self._sweep
        if sweep is None or self.state != "sweeping" or sweep.frames == self._published:
            return
        if not force and time.monotonic() - self._last_update < self.settings.update_period:
            return
        self._published, self._last_update = sweep.frames, time.monotonic()
        self._shown = True
        self._tell("us/bone", lambda: self._outputs.bone(sweep.bone_points(), sweep.newest_stamp))
        self._tell("us/coverage", lambda: self._outputs.coverage(sweep.coverage, sweep.newest_stamp))

    def _show_slice(self, matched: MatchedFrame) -> None:
        sweep, now = self._sweep, time.monotonic()
        if sweep is not None and now - self._last_slice >= self.settings.slice_period:
            self._last_slice = now
            self._tell("us/slice", lambda: self._outputs.slice(sweep.slice_points(matched), matched.frame.stamp))

    def _clear(self, stamp: int) -> None:
        """Take back what an earlier sweep showed."""
        if self._shown:
            self._shown = False
            self._tell("us/bone", lambda: self._outputs.cleared(stamp))

    def _tell(self, what: str, publish: Callable[[], None]) -> None:
        """Publish; a failure is told in the state, and no frame is lost by it."""
        try:
            publish()
        except Exception as error:
            self.trouble = f"{what} could not be published: {error!r}"

    def _note_facts(self) -> None:
        """Renew what other threads read of the sweep and the poses, once per ``facts_period``."""
        now, sweep = time.monotonic(), self._sweep
        if now - self._last_facts < self.settings.facts_period:
            return
        self._last_facts = now
        facts: dict[str, object] = {"sweep": self._number}
        if sweep is not None:
            summary = sweep.coverage.summary()
            facts |= {"frames": summary.frames, "length_mm": round(summary.length, 1),
                      "largest_gap_mm": round(summary.largest_gap, 2), "memory_mib": sweep.bytes_held >> 20}
        self._facts = facts | {"waiting_for_pose": self._matcher.waiting}
        self._still = self._matcher.poses.still_since() * 1e-9

    def _answer(self, request: _Call) -> None:
        try:
            if request.command == "save":
                self._begin_save(request)
            else:
                request.answer(True, getattr(self, f"_do_{request.command}")())
        except UsxError as error:
            request.answer(False, str(error))
        except Exception as error:  # a service call must get an answer, whatever happened
            request.answer(False, f"{request.command} failed: {error!r}")

    def _do_start(self) -> str:
        if self.state == "sweeping":
            raise UsxError(f"sweep {self._number} is under way; stop it first")
        self.state = "waiting"
        return f"sweep {self._number + 1} begins with the next frame that has a pose"

    def _do_stop(self) -> str:
        was, frames = self.state, self._sweep.frames if self._sweep else 0
        self._end("stopped")
        self.state = "stopped"
        if was != "sweeping":
            return "no sweep was under way; frames are left out until ~/start"
        return f"sweep {self._number} ended with {frames} frames; frames are left out until ~/start"

    def _do_reset(self) -> str:
        self._settle(self._matcher.clear())
        if self._sweep is not None:
            self._clear(self._sweep.newest_stamp)
        self._sweep = None
        self.state, self.trouble = "waiting", ""
        return "volume and poses forgotten; the next frame that has a pose begins a new sweep"

    def _begin_save(self, request: _Call) -> None:
        """Have the volume written in a thread of its own; only a sweep that still takes frames must be copied."""
        if self._sweep is None or not self._sweep.frames:
            raise UsxError("there is no volume to save: no frame has been compounded yet")
        self._saving.check_free()
        sweep = self._sweep.snapshot() if self.state == "sweeping" else self._sweep
        self._saving.begin(sweep, self._number, request.answer)
