"""Transport of serialised ROS messages over Eclipse Cyclone DDS, without rclpy and without message classes.

    with Participant() as participant:                       # ROS_DOMAIN_ID, discovery range, CYCLONEDDS_URI
        participant.add_node("recorder")
        reader = participant.create_reader("/tf", "tf2_msgs/msg/TFMessage", QoSProfile(depth=100), ("recorder", "/"))
        while participant.wait([reader], seconds=1.0):
            for sample in reader.take(100):
                ...                                          # sample.data: CDR bytes with header
"""

from usx_runtime.dds.config import DomainError
from usx_runtime.dds.graph import Endpoint, Graph
from usx_runtime.dds.participant import Participant, RawReader, RawSample, RawWriter, Waiter

__all__ = ["DomainError", "Endpoint", "Graph", "Participant", "RawReader", "RawSample", "RawWriter", "Waiter"]
