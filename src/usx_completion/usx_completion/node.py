"""completion_node: completes vertebrae from the partial spine."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Mapping

from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from usx_common.counters import StreamCounters
from usx_common.errors import UsxError
from usx_common.levels import label_of_level
from usx_common.rates import LatencyMeter, RateMeter
from usx_common.ros import conversion, interface
from usx_common.ros.node_support import OK, WARN, Diagnostics, declare_parameters, run
from usx_common.worker import Worker
from usx_completion import output, parameters
from usx_completion.completed import Completion
from usx_completion.methods import make_method
from usx_completion.observation import BadPartial, as_codes

FIELDS = ("x", "y", "z", "label", "source")


class CompletionNode(Node):
    """Answers the newest partial spine on a worker thread; every answer comes from one partial cloud alone."""

    def __init__(self) -> None:
        super().__init__("completion_node")
        self._values = declare_parameters(self, parameters.TABLE)
        self._diagnostics = Diagnostics(self)
        self._rate, self._latency = RateMeter(), LatencyMeter()
        self._counters = self._diagnostics.watch(StreamCounters("spine/partial"), self._rate, self._latency)
        self._method = make_method(self._values)
        self._completion: Completion | None = None
        self._closed, self._ending = False, threading.Lock()
        self._last_state: tuple[bytes, str, dict[str, object]] = (OK, "", {})
        self._answered = ""
        self._cloud = self.create_publisher(PointCloud2, "spine/completed", interface.LATCHED)
        self._meshes = self.create_publisher(MarkerArray, "spine/meshes", interface.LATCHED)
        self._texts = self.create_publisher(MarkerArray, "spine/labels", interface.LATCHED)
        self._save = self.create_service(Trigger, "~/save", self._on_save)
        self._worker: Worker[PointCloud2] = Worker(
            self._complete, "completion", on_error=self._refuse,
            on_drop=lambda _: self._counters.rejected("superseded"))
        self._subscription = self.create_subscription(PointCloud2, "spine/partial", self._on_partial, interface.LATCHED)
        self._tell(OK, f"{self._method.description} loaded; waiting for spine/partial", {})

    def close(self) -> None:
        """Stop the worker. What it is at is waited for, some seconds; what comes later is not published."""
        self._worker.close()
        with self._ending:
            self._closed = True

    def _on_partial(self, message: PointCloud2) -> None:
        self._counters.received()
        self._rate.tick()
        self._worker.submit(message)

    def _complete(self, message: PointCloud2) -> None:
        start = time.monotonic()
        interface.check_cloud(message, FIELDS, self._values["spine_frame"])
        name = self._name_of_new(message)
        fields = conversion.cloud_to_fields(message)
        points = conversion.cloud_points_mm(message)
        labels, sources = (as_codes(fields[field], field, points) for field in ("label", "source"))
        completion = self._method.complete(points, labels, sources)
        with self._ending:  # publishers live as long as this is held
            if self._closed:
                raise BadPartial("closed", "the node has ended")
            self._publish(completion, message)
        self._completion = completion
        self._latency.add(time.monotonic() - start)
        self._last_state = (OK if completion.levels else WARN, output.describe(completion),
                            {"dropped_points": completion.dropped_points, "method": self._method.description})
        self._tell(*self._last_state)
        # last, because _refuse counts what raises above, and what failed may be sent again
        self._answered = name
        self._counters.used()

    def _tell(self, level: bytes, text: str, facts: Mapping[str, object]) -> None:
        """The node's state, with what has to be known of the method."""
        warning = self._method.warning
        self._diagnostics.set_state(WARN if warning else level, f"{warning}; {text}" if warning else text, **facts)

    def _name_of_new(self, message: PointCloud2) -> str:
        """The same cloud again needs no second answer; another cloud with the same stamp does."""
        stamp = conversion.stamp_nanoseconds(message.header.stamp)
        name = f"{stamp} {hashlib.sha256(memoryview(message.data)).hexdigest()}"
        if name == self._answered:
            raise BadPartial("duplicate", "the same partial spine came again")
        return name

    def _publish(self, completion: Completion, message: PointCloud2) -> None:
        frame, stamp = message.header.frame_id, message.header.stamp
        points, labels, sigma = output.completed_cloud(completion)
        clear = conversion.delete_all_marker(frame, stamp)
        meshes = [conversion.mesh_marker(level.mesh, frame, stamp, (name, label_of_level(name)), output.COLOURS[name])
                  for name, level in completion.levels.items()]
        texts = [conversion.text_marker(text, place, frame, stamp, (name, label_of_level(name)))
                 for name, (text, place) in output.level_texts(completion).items()]
        cloud = conversion.fields_to_cloud(points, frame, stamp, label=labels, sigma=sigma)
        self._meshes.publish(MarkerArray(markers=[clear, *meshes]))
        self._texts.publish(MarkerArray(markers=[clear, *texts]))
        self._cloud.publish(cloud)

    def _refuse(self, message: PointCloud2, error: Exception) -> None:
        reason = getattr(error, "reason", "failed")
        self._counters.rejected(reason)
        if reason == "closed":
            return
        if reason == "duplicate":  # the answer to it stands, and with it what was said of it
            self._tell(*self._last_state)
        else:
            self._tell(WARN, f"partial spine refused: {error}", {"method": self._method.description})

    def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            files = output.save_meshes(self._values["save_folder"], self._completion)
        except UsxError as error:
            response.success, response.message = False, str(error)
            return response
        response.success, response.message = True, f"saved {', '.join(map(str, files))}"
        return response


def main() -> int:
    """Entry point."""
    return run(CompletionNode)


if __name__ == "__main__":
    sys.exit(main())
