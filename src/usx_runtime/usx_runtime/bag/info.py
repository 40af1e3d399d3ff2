"""`usx bag info`: what a recording holds."""

from __future__ import annotations

from datetime import datetime

from usx_runtime.bag.recording import Recording, open_recording


def show_info(path: str) -> int:
    """Print files, times and topics, laid out as `ros2 bag info` does."""
    with open_recording(path) as recording:
        for label, value in _rows(recording):
            print(f"{label + ':' if label else '':<19}{value}")
    return 0


def _rows(recording: Recording) -> list[tuple[str, str]]:
    size = sum(file.stat().st_size for file in recording.files)
    storage = {".mcap": "mcap", ".db3": "sqlite3"}.get(recording.files[0].suffix, "unknown") if recording.files else ""
    rows = [("Files" if place == 0 else "", file.name) for place, file in enumerate(recording.files)]
    rows += [
        ("Bag size", f"{size / 2**20:.1f} MiB"),
        ("Storage id", storage),
        ("ROS Distro", recording.ros_distro),
        ("Duration", f"{(recording.end_ns - recording.start_ns) / 1e9:.9f}s"),
        ("Start", _moment(recording.start_ns)),
        ("End", _moment(recording.end_ns)),
        ("Messages", str(recording.count)),
    ]
    for place, topic in enumerate(recording.topics):
        text = f"Topic: {topic.name} | Type: {topic.type_name} | Count: {topic.count} | Serialization Format: cdr"
        rows.append(("Topic information" if place == 0 else "", text))
    return rows


def _moment(time_ns: int) -> str:
    seconds, nanoseconds = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds):%b %d %Y %H:%M:%S}.{nanoseconds:09d} ({seconds}.{nanoseconds:09d})"
