"""rclpy.node."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from usx_runtime.messages import type_name_of
from usx_runtime.qos import QoSProfile, qos_profile_services_default
from usx_runtime.rclpy import arguments, names
from usx_runtime.rclpy.callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup
from usx_runtime.rclpy.client import Client
from usx_runtime.rclpy.clock import Clock, ROSClock
from usx_runtime.rclpy.exceptions import ContextEnded, InvalidParameterException, NotInitializedException
from usx_runtime.rclpy.guard_condition import GuardCondition
from usx_runtime.rclpy.logging import RcutilsLogger, get_logger
from usx_runtime.rclpy.node_graph import NodeGraph
from usx_runtime.rclpy.node_parameters import NodeParameters
from usx_runtime.rclpy.parameter import Parameter
from usx_runtime.rclpy.publisher import Publisher
from usx_runtime.rclpy.service import Service
from usx_runtime.rclpy.subscription import Subscription
from usx_runtime.rclpy.time_source import TimeSource
from usx_runtime.rclpy.timer import Timer
from usx_runtime.rclpy.utilities import get_default_context

LACKING = {
    "create_rate", "add_waitable", "remove_waitable", "set_parameters_callback", "set_descriptor",
    "add_pre_set_parameters_callback", "get_publisher_names_and_types_by_node", "get_client_names_and_types_by_node",
    "get_subscriber_names_and_types_by_node", "get_service_names_and_types_by_node", "count_services", "count_clients",
    "get_servers_info_by_service", "get_clients_info_by_service",
}


def _absent(**options: Any) -> None:
    """Refuses options of rclpy that this implementation does not have."""
    for name, value in options.items():
        if value is not None:
            raise NotImplementedError(f"the embedded rclpy does not support the option {name!r}")


class Node(NodeParameters, NodeGraph):
    """A node: owner of publishers, subscriptions, timers, services, clients and parameters."""

    def __init__(
        self, node_name: str, *, context: Any = None, cli_args: Sequence[str] | None = None,
        namespace: str | None = None, use_global_arguments: bool = True, enable_rosout: bool = True,
        start_parameter_services: bool = True, parameter_overrides: Sequence[Parameter] | None = None,
        allow_undeclared_parameters: bool = False, automatically_declare_parameters_from_overrides: bool = False,
        enable_logger_service: bool = False,
    ) -> None:
        self.context = context or get_default_context()
        if not self.context.ok():
            raise (ContextEnded if self.context.ended else NotInitializedException)("cannot create node")
        own = arguments.parse(["--ros-args", *cli_args] if cli_args and "--ros-args" not in cli_args
                              else cli_args or [])
        self._arguments = arguments.merged(own, self.context.arguments if use_global_arguments
                                           else arguments.Arguments())
        names.check_node_name(node_name)
        self._name = names.check_node_name(self._arguments.node_name(node_name))
        self._namespace = names.check_namespace(self._arguments.namespace(node_name, namespace or "/"))
        self.graph_name = (self._name, self._namespace)
        self._publishers: list[Publisher] = []
        self._timers: list[Timer] = []
        self._subscriptions: list[Subscription] = []
        self._guards: list[GuardCondition] = []
        self._clients: list[Client] = []
        self._services: list[Service] = []
        self._executor: Any = None
        self._destroyed = False
        self._logger = get_logger(".".join(p for p in f"{self._namespace}/{self._name}".split("/") if p))
        self._default_callback_group = MutuallyExclusiveCallbackGroup()
        self._clock = ROSClock()
        overrides = self._overrides(parameter_overrides or ())
        self.participant = self.context.participant()
        self.context.add_node(self)
        try:
            self.participant.add_node(*self.graph_name)
            self._init_parameters(overrides, allow_undeclared_parameters)
            if automatically_declare_parameters_from_overrides:
                self.declare_parameters("", [(p.name, p.value) for p in overrides.values()])
            self._time_source = TimeSource(self, self._clock)
        except BaseException:
            self.destroy_node()
            raise

    def _overrides(self, given: Sequence[Parameter]) -> dict[str, Parameter]:
        found: dict[str, Parameter] = {}
        for name, value in self._arguments.overrides(self._name, self._namespace).items():
            try:
                found[name] = Parameter(name, value=value)
            except (TypeError, ValueError) as error:
                raise InvalidParameterException(f"{name} = {value!r}: {error}") from error
        return found | {parameter.name: parameter for parameter in given}

    def __getattr__(self, name: str) -> Any:
        if name in LACKING:
            raise AttributeError(f"rclpy's Node.{name} is not part of the embedded rclpy")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # names

    def get_name(self) -> str:
        return self._name

    def get_namespace(self) -> str:
        return self._namespace

    def get_fully_qualified_name(self) -> str:
        return names.fully_qualified(self._name, self._namespace)

    def get_logger(self) -> RcutilsLogger:
        return self._logger

    def get_clock(self) -> Clock:
        return self._clock

    @property
    def default_callback_group(self) -> CallbackGroup:
        return self._default_callback_group

    def resolve_topic_name(self, topic: str, *, only_expand: bool = False) -> str:
        """The absolute and remapped name; raises InvalidTopicNameException."""
        absolute = names.expand(topic, self._name, self._namespace)
        return absolute if only_expand else self._arguments.remap(absolute, self._name, self._namespace)

    def resolve_service_name(self, service: str, *, only_expand: bool = False) -> str:
        """The absolute and remapped name; raises InvalidServiceNameException."""
        absolute = names.expand(service, self._name, self._namespace, service=True)
        return absolute if only_expand else self._arguments.remap(absolute, self._name, self._namespace, service=True)

    # executor

    @property
    def executor(self) -> Any:
        return self._executor() if self._executor is not None else None

    @executor.setter
    def executor(self, new_executor: Any) -> None:
        current = self.executor
        if current is not None and current is not new_executor:
            self._executor = None
            current.remove_node(self)
        self._executor = weakref.ref(new_executor) if new_executor is not None else None

    def wake_executor(self) -> None:
        executor = self.executor
        if executor is not None:
            executor.wake()

    def waitables(self) -> list[Any]:
        """Everything that can become ready, in the order in which it is served."""
        return [*self._timers, *self._subscriptions, *self._guards, *self._clients, *self._services]

    def look_after_graph(self) -> None:
        """Takes in news of the graph and warns of peers whose quality of service does not fit."""
        self.participant.graph.drain()
        for publisher in self._publishers:
            if publisher._writer.refused():
                self._logger.warning(
                    f"New subscription discovered on topic '{publisher.topic}', requesting incompatible QoS. No"
                    " messages will be sent to it.")
        for subscription in self._subscriptions:
            if subscription.reader.refused():
                self._logger.warning(
                    f"New publisher discovered on topic '{subscription.topic}', offering incompatible QoS. No"
                    " messages will be received from it.")

    # topics

    def create_publisher(
        self, msg_type: Any, topic: str, qos_profile: QoSProfile | int, *, callback_group: Any = None,
        event_callbacks: Any = None, qos_overriding_options: Any = None, publisher_class: type[Publisher] = Publisher,
    ) -> Publisher:
        """Raises TypeError (no message class), InvalidTopicNameException, ValueError (depth)."""
        _absent(event_callbacks=event_callbacks, qos_overriding_options=qos_overriding_options)
        _check_type(msg_type, "/msg/")
        publisher = publisher_class(self, msg_type, self.resolve_topic_name(topic), _profile(qos_profile))
        self._publishers.append(publisher)
        return publisher

    def create_subscription(
        self, msg_type: Any, topic: str, callback: Callable[..., Any], qos_profile: QoSProfile | int, *,
        callback_group: CallbackGroup | None = None, event_callbacks: Any = None, qos_overriding_options: Any = None,
        raw: bool = False, content_filter_options: Any = None,
    ) -> Subscription:
        """`callback(message)` or `callback(message, info)`; `raw` gives bytes. Raises as create_publisher."""
        _absent(event_callbacks=event_callbacks, qos_overriding_options=qos_overriding_options,
                content_filter_options=content_filter_options)
        _check_type(msg_type, "/msg/")
        subscription = Subscription(
            self, msg_type, self.resolve_topic_name(topic), callback, _profile(qos_profile),
            callback_group or self._default_callback_group, raw)
        self._subscriptions.append(subscription)
        self.wake_executor()
        return subscription

    # services

    def create_service(
        self, srv_type: Any, srv_name: str, callback: Callable[..., Any], *,
        qos_profile: QoSProfile = qos_profile_services_default, callback_group: CallbackGroup | None = None,
    ) -> Service:
        """`callback(request, response) -> response`."""
        _check_type(srv_type, "/srv/")
        service = Service(self, srv_type, self.resolve_service_name(srv_name), callback,
                          callback_group or self._default_callback_group, qos_profile)
        self._services.append(service)
        self.wake_executor()
        return service

    def create_client(
        self, srv_type: Any, srv_name: str, *, qos_profile: QoSProfile = qos_profile_services_default,
        callback_group: CallbackGroup | None = None,
    ) -> Client:
        _check_type(srv_type, "/srv/")
        client = Client(self, srv_type, self.resolve_service_name(srv_name), qos_profile,
                        callback_group or self._default_callback_group)
        self._clients.append(client)
        self.wake_executor()
        return client

    # timers and guards

    def create_timer(
        self, timer_period_sec: float, callback: Callable[..., Any] | None, callback_group: CallbackGroup | None = None,
        clock: Clock | None = None, autostart: bool = True,
    ) -> Timer:
        """Calls back every `timer_period_sec` on `clock`, the node's (ROS time) unless another is given."""
        timer = Timer(self, callback, callback_group or self._default_callback_group,
                      int(float(timer_period_sec) * 1e9), clock or self._clock, autostart)
        self._timers.append(timer)
        self.wake_executor()
        return timer

    def create_guard_condition(
        self, callback: Callable[[], Any], callback_group: CallbackGroup | None = None,
    ) -> GuardCondition:
        guard = GuardCondition(self, callback, callback_group or self._default_callback_group)
        self._guards.append(guard)
        self.wake_executor()
        return guard

    # the end

    def _destroy(self, entity: Any, entities: list[Any]) -> bool:
        if entity not in entities:
            return False
        entities.remove(entity)
        group = getattr(entity, "callback_group", None)
        if group is not None and entity in group.entities:
            group.entities.remove(entity)
        if hasattr(entity, "close"):
            entity.close()
        executor = self.executor
        if executor is not None:
            executor.refresh()
        return True

    def destroy_publisher(self, publisher: Publisher) -> bool:
        return self._destroy(publisher, self._publishers)

    def destroy_subscription(self, subscription: Subscription) -> bool:
        return self._destroy(subscription, self._subscriptions)

    def destroy_service(self, service: Service) -> bool:
        return self._destroy(service, self._services)

    def destroy_client(self, client: Client) -> bool:
        return self._destroy(client, self._clients)

    def destroy_timer(self, timer: Timer) -> bool:
        timer.cancel()
        return self._destroy(timer, self._timers)

    def destroy_guard_condition(self, guard: GuardCondition) -> bool:
        return self._destroy(guard, self._guards)

    def destroy_node(self) -> None:
        """Closes everything the node has; it cannot be used afterwards."""
        if self._destroyed:
            return
        self._destroyed = True
        self.executor = None
        owned: tuple[list[Any], ...] = (self._publishers, self._timers, self._subscriptions, self._guards,
                                        self._clients, self._services)
        for entities in owned:
            for entity in list(entities):
                self._destroy(entity, entities)
        self.participant.remove_node(*self.graph_name)
        self.context.remove_node(self)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: Any) -> None:
        self.destroy_node()


def _profile(qos: QoSProfile | int) -> QoSProfile:
    if isinstance(qos, QoSProfile):
        return qos
    if isinstance(qos, bool) or not isinstance(qos, int):
        raise TypeError(f"qos_profile = {qos!r}: must be a QoSProfile or a depth")
    if qos < 0:
        raise ValueError("history depth must be greater than or equal to zero")
    return QoSProfile(depth=qos)


def _check_type(kind: Any, group: str) -> None:
    if group not in type_name_of(kind):
        raise TypeError(f"{kind!r} is not a {'message' if group == '/msg/' else 'service'} class")
