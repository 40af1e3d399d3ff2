"""Opening a rosbag2 recording, with errors that say what is wrong with it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinitionFormat
from rosbags.rosbag2 import Reader, ReaderError

from usx_runtime.bag.quality import from_recorded
from usx_runtime.qos import QoSProfile
from usx_runtime.user_error import UserError

# rosbags checks what it reads in most places, not in all: damaged lengths and offsets surface as these
DAMAGE = (
    *(ReaderError, OSError, EOFError, struct.error, AssertionError, LookupError),
    *(ArithmeticError, MemoryError, TypeError, ValueError),
)


@dataclass(frozen=True)
class RecordedTopic:
    """One topic of a recording. `definition`: text of its message definition, "" where the bag has none."""

    name: str
    type_name: str
    definition: str
    count: int
    qos: tuple[QoSProfile, ...]


class Recording:
    """An open recording; made by `open_recording`. Times are nanoseconds since 1970."""

    def __init__(self, path: Path, reader: Reader) -> None:
        self.path = path
        self._reader = reader
        self.count = reader.message_count
        self.start_ns = reader.start_time if self.count else 0
        self.end_ns = reader.end_time - 1 if self.count else 0  # rosbags gives the first nanosecond after it
        self.ros_distro = reader.ros_distro or "unknown"
        self.files = sorted(path.glob("*.mcap*")) + sorted(path.glob("*.db3*")) if path.is_dir() else [path]
        self.topics = [_topic(connection) for connection in reader.connections]

    def messages(self, topics: set[str], start_ns: int) -> Iterator[tuple[str, int, bytes]]:
        """(topic, time, CDR) of the messages of `topics` from `start_ns` on, in the order of their times.

        Raises UserError where the file turns out to be damaged."""
        wanted = [connection for connection in self._reader.connections if connection.topic in topics]
        if not wanted:
            return
        try:
            for connection, time_ns, data in self._reader.messages(wanted, start=start_ns):
                yield connection.topic, time_ns, data
        except DAMAGE as error:
            raise UserError(f"bag '{self.path}' is damaged: {error}") from None


def _topic(connection: Connection) -> RecordedTopic:
    assert isinstance(connection.ext, ConnectionExtRosbag2)
    is_text = connection.msgdef.format == MessageDefinitionFormat.MSG
    return RecordedTopic(
        name=connection.topic,
        type_name=connection.msgtype,
        definition=connection.msgdef.data if is_text else "",
        count=connection.msgcount,
        qos=tuple(from_recorded(profile) for profile in connection.ext.offered_qos_profiles),
    )


@contextmanager
def open_recording(path: str) -> Iterator[Recording]:
    """The recording in folder `path` (or the storage file `path`). Raises UserError where it cannot be read."""
    folder = Path(path)
    if not folder.exists():
        raise UserError(f"bag '{path}' does not exist")
    if folder.is_dir() and not (folder / "metadata.yaml").is_file():
        stored = sorted(folder.glob("*.mcap")) + sorted(folder.glob("*.db3"))
        if not stored:
            raise UserError(f"'{path}' is no bag: it holds neither metadata.yaml nor a storage file (.mcap, .db3)")
        raise UserError(
            f"bag '{path}' has no metadata.yaml: its recording was not finished. "
            f"Try the storage file itself ({stored[0]}), or `ros2 bag reindex` on a machine with ROS 2"
        )
    try:
        reader = Reader(folder)
        reader.open()
    except DAMAGE as error:
        raise UserError(f"bag '{path}' cannot be read: {error}") from None
    try:
        foreign = {
            connection.ext.serialization_format
            for connection in reader.connections
            if isinstance(connection.ext, ConnectionExtRosbag2)
        } - {"cdr"}
        if foreign:
            raise UserError(f"bag '{path}': serialization format {sorted(foreign)} is not supported, only 'cdr' is")
        yield Recording(folder, reader)
    finally:
        reader.close()
