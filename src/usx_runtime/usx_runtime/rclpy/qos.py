"""rclpy.qos."""

from usx_runtime.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    InvalidQoSProfileException,
    LivelinessPolicy,
    QoSCompatibility,
    QoSDurabilityPolicy,
    QoSHistoryPolicy,
    QoSLivelinessPolicy,
    QoSPresetProfiles,
    QoSProfile,
    QoSReliabilityPolicy,
    ReliabilityPolicy,
    qos_check_compatible,
    qos_profile_best_available,
    qos_profile_default,
    qos_profile_parameter_events,
    qos_profile_parameters,
    qos_profile_sensor_data,
    qos_profile_services_default,
    qos_profile_system_default,
    qos_profile_unknown,
)

__all__ = [
    "DurabilityPolicy", "HistoryPolicy", "InvalidQoSProfileException", "LivelinessPolicy", "QoSCompatibility",
    "QoSDurabilityPolicy", "QoSHistoryPolicy", "QoSLivelinessPolicy", "QoSPresetProfiles", "QoSProfile",
    "QoSReliabilityPolicy", "ReliabilityPolicy", "qos_check_compatible", "qos_profile_best_available",
    "qos_profile_default", "qos_profile_parameter_events", "qos_profile_parameters", "qos_profile_sensor_data",
    "qos_profile_services_default", "qos_profile_system_default", "qos_profile_unknown",
]
