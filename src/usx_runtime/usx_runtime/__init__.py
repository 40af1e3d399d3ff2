"""ROS 2 for machines without ROS 2: rclpy's API on Eclipse Cyclone DDS.

The layers, lowest first. Modules of this package import each other as `usx_runtime.*`, never as `rclpy`.

`usx_runtime.qos`
    `QoSProfile`, its policies and the named profiles (`usx_runtime.rclpy.qos` re-exports them).

`usx_runtime.messages`: message and service classes
    `module_for(name) -> ModuleType | None`: the module standing for `sensor_msgs`, `sensor_msgs.msg`, `std_srvs.srv`;
    None for a name that is no known message package. Classes are generated at first attribute access.
    `get_message("sensor_msgs/msg/Image") -> class`; `get_service("std_srvs/srv/Trigger") -> class`.
    `serialize(message) -> bytes` (CDR with header), `deserialize(cdr, class) -> message`.
    `message_types() -> list[str]`, `typestore() -> rosbags Typestore` (Jazzy), `register(definition, type_name)`
    for the message definition text that a bag carries.

`usx_runtime.dds`: raw transport (serialised messages as bytes; no rclpy, no message classes)
    `Participant(domain_id=None)`: one per process and domain; `close()`, also a context manager.
    `participant.add_node(name, namespace="/")`: announces a node name to the ROS graph; `remove_node(...)`.
    `participant.create_writer(topic, type_name, qos, node=None) -> RawWriter`: `write(cdr, stamp_ns=None)`,
    `matched() -> int` readers, `wait_for_acknowledgements(seconds) -> bool`, `close()`.
    `participant.create_reader(topic, type_name, qos, node=None) -> RawReader`: `take(limit) -> list[RawSample]`
    (`data: bytes`, `source_ns`, `received_ns`), `matched() -> int` writers, `close()`.
    `participant.wait(readers, seconds) -> bool`: sleeps until one of the readers has data.
    `participant.graph.topics() -> dict[topic, list[type_name]]`,
    `participant.graph.writers(topic)` / `readers(topic) -> list[Endpoint]` (`topic, type_name, type_hash, qos, gid,
    node_name, node_namespace`), `participant.graph.nodes() -> list[(name, namespace)]`.
    Topics are absolute ROS names (`/us/image_raw`), types ROS names (`sensor_msgs/msg/Image`).

`usx_runtime.rclpy`
    rclpy's API: `init`, `Node`, publishers, subscriptions, timers, parameters, services, executors, clocks, logging.
    What it lacks raises `AttributeError` (an absent name) or `NotImplementedError` (an absent option) naming the API.
"""
