"""A small DICOM storage server (C-STORE SCP): X-rays and CT only, from known senders, within limits.

Objects are written under names of our own into one directory, first with a temporary name: no part of a path comes
from a data set (compare CVE-2026-56445). What a peer may send is bounded before it is stored: the length of one PDU,
the bytes of one object, the time for one PDU and for one object, and the number of associations.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.transport import ThreadedAssociationServer

from usx_common.counters import StreamCounters
from usx_common.errors import UsxError
from usx_xray.dicom_file import TRANSFER_SYNTAXES

VERIFICATION = "1.2.840.10008.1.1"
STORED_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1": "Computed Radiography Image",
    "1.2.840.10008.5.1.4.1.1.1.1": "Digital X-Ray Image, for presentation",
    "1.2.840.10008.5.1.4.1.1.1.1.1": "Digital X-Ray Image, for processing",
    "1.2.840.10008.5.1.4.1.1.12.1": "X-Ray Angiographic Image",
    "1.2.840.10008.5.1.4.1.1.12.2": "X-Ray Radiofluoroscopic Image",
    "1.2.840.10008.5.1.4.1.1.2": "CT Image",
    "1.2.840.10008.5.1.4.1.1.2.1": "Enhanced CT Image",
}
SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
PDU_BYTES = 131_072
COMMAND_BYTES = 65_536


@dataclass(frozen=True)
class StorageSettings:
    """Where to listen, whom to believe, how much to take; times in s.

    ``callers``: AE titles that may call; empty admits any, which is allowed on the loopback interface only.
    ``folder_bytes`` bounds what lies in the folder altogether.
    """

    port: int
    folder: Path
    address: str = "127.0.0.1"
    title: str = "USX"
    callers: tuple[str, ...] = ()
    object_bytes: int = 256 * 2**20
    folder_bytes: int = 4 * 2**30
    associations: int = 4
    idle_timeout: float = 30.0
    object_timeout: float = 120.0


class StorageServer:
    """Listens from construction until ``close``; calls ``on_stored(path)`` in a thread of its own for every object.

    ``objects`` counts C-STORE requests, ``associations`` connections. Raises UsxError when the port is taken or the
    settings are unsafe.
    """

    def __init__(self, settings: StorageSettings, on_stored: Callable[[Path], None]) -> None:
        _check_settings(settings)
        self.settings = settings
        self.objects = StreamCounters("dicom_objects")
        self.associations = StreamCounters("dicom_associations")
        self._on_stored = on_stored
        self._lock = threading.Lock()
        _prepare(settings.folder)
        try:
            self._server = cast(ThreadedAssociationServer, _entity(settings).start_server(
                (settings.address, settings.port), block=False, evt_handlers=self._handlers()))
        except OSError as error:
            reason = "is taken by another program" if error.errno == errno.EADDRINUSE else f"failed: {error.strerror}"
            raise UsxError(f"listening for DICOM on {settings.address} port {settings.port} {reason}; choose another "
                           "dicom_port or dicom_bind_address") from error

    @property
    def port(self) -> int:
        """The port listened on (chosen by the system where the settings say 0)."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening and abort what is going on."""
        self._server.shutdown()
        for association in list(self._server.ae.active_associations):
            association.abort()

    def _handlers(self) -> list[Any]:
        return [(evt.EVT_CONN_OPEN, self._opened), (evt.EVT_C_STORE, self._store),
                (evt.EVT_C_ECHO, lambda event: SUCCESS), (evt.EVT_DIMSE_SENT, _next_object),
                (evt.EVT_CONN_CLOSE, self._closed)]

    def _closed(self, event: evt.Event) -> None:
        """Every connection ends here once: with an association that was admitted, or without."""
        receive = cast(Any, event.assoc).bounded_receive
        if receive.settled:
            return
        receive.settled = True
        if event.assoc.is_rejected:
            self.associations.rejected("not_admitted")
        elif event.assoc.accepted_contexts:
            self.associations.used()
        else:
            self.associations.rejected("no_association")

    def _opened(self, event: evt.Event) -> None:
        self.associations.received()
        BoundedReceive(event.assoc, self.settings, self._too_large)

    def _too_large(self, reason: str) -> None:
        self.objects.received()
        self.objects.rejected(reason)

    def _store(self, event: evt.Event) -> int:
        self.objects.received()
        if event.request.AffectedSOPClassUID not in STORED_CLASSES:
            self.objects.rejected("sop_class")
            return CANNOT_UNDERSTAND
        try:
            data = event.encoded_dataset()
        except Exception:  # pynetdicom raises what its decoding of a hostile command set happens to raise
            self.objects.rejected("damaged_request")
            return CANNOT_UNDERSTAND
        try:
            with self._lock:
                path = write_object(data, self.settings)
        except UsxError:
            self.objects.rejected("folder_full")
            return OUT_OF_RESOURCES
        except OSError:
            self.objects.rejected("cannot_write")
            return OUT_OF_RESOURCES
        self.objects.used()
        self._on_stored(path)
        return SUCCESS


class BoundedReceive:
    """Takes the place of a connection's ``recv``, which waits for as many bytes as a peer announces, up to 4 GiB.

    An error raised here ends the association, as if the peer had closed the connection.
    """

    def __init__(self, association: Association, settings: StorageSettings, on_refused: Callable[[str], None]) -> None:
        self._association, self._settings, self._on_refused = association, settings, on_refused
        self.settled = False
        self.new_object()
        self._wrapped = association.dul.socket
        assert self._wrapped is not None
        self._socket = self._wrapped.socket
        assert self._socket is not None
        self._socket.settimeout(settings.idle_timeout)
        cast(Any, self._wrapped).recv = self.receive
        cast(Any, association).bounded_receive = self

    def new_object(self) -> None:
        """Begin counting anew: the last object is complete."""
        self._taken = 0
        self._since = time.monotonic()

    def receive(self, count: int) -> bytearray:
        """``count`` bytes, fewer when the peer closes. Raises OSError beyond the limits of size and time."""
        if count > PDU_BYTES + COMMAND_BYTES:
            raise OSError(f"a PDU of {count} bytes was announced")
        self._taken += count
        if self._taken > self._settings.object_bytes + COMMAND_BYTES:
            self._refuse("too_large")
        deadline = time.monotonic() + self._settings.idle_timeout
        data = bytearray()
        while len(data) < count:
            now = time.monotonic()
            if now > deadline or (self._taken > COMMAND_BYTES and now - self._since > self._settings.object_timeout):
                self._refuse("too_slow")
            assert self._socket is not None
            piece = self._socket.recv(min(count - len(data), 65536))
            if not piece:
                break
            data += piece
        return data

    def _refuse(self, reason: str) -> None:
        if self._association.accepted_contexts:
            self._on_refused(reason)
        raise OSError(f"the association is ended: {reason}")


def write_object(data: bytes, settings: StorageSettings) -> Path:
    """Write an object under a name of our own. Raises UsxError when the folder would exceed its bound, OSError."""
    held = sum(entry.stat().st_size for entry in os.scandir(settings.folder) if entry.is_file())
    if held + len(data) > settings.folder_bytes:
        raise UsxError(f"the folder of received DICOM objects holds {held} bytes; {settings.folder_bytes} are allowed")
    name = uuid.uuid4().hex
    temporary, final = settings.folder / f"{name}.part", settings.folder / f"{name}.dcm"
    try:
        temporary.write_bytes(data)
        temporary.rename(final)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return final


def _next_object(event: evt.Event) -> None:
    cast(Any, event.assoc).bounded_receive.new_object()


def _entity(settings: StorageSettings) -> AE:
    entity = AE(ae_title=settings.title)
    for uid in STORED_CLASSES:
        entity.add_supported_context(uid, list(TRANSFER_SYNTAXES))
    entity.add_supported_context(VERIFICATION)
    entity.maximum_associations = settings.associations
    entity.maximum_pdu_size = PDU_BYTES
    entity.acse_timeout = min(settings.idle_timeout, 15.0)
    entity.dimse_timeout = settings.idle_timeout
    entity.network_timeout = settings.idle_timeout
    entity.require_called_aet = True
    entity.require_calling_aet = list(settings.callers)
    return entity


def _check_settings(settings: StorageSettings) -> None:
    try:
        address = ipaddress.ip_address(settings.address)
    except ValueError as error:
        raise UsxError(f"dicom_bind_address {settings.address!r} is no IP address; use 127.0.0.1 for this machine "
                       "only, or the address of one network interface") from error
    if not address.is_loopback and not settings.callers:
        raise UsxError(f"dicom_bind_address {settings.address} can be reached from the network: name the senders in "
                       "allowed_ae_titles")
    for title in (settings.title, *settings.callers):
        if not 1 <= len(title.strip()) <= 16 or not title.isascii() or "\\" in title:
            raise UsxError(f"AE title {title!r} must have 1 to 16 characters, no backslash")


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = folder / f"{uuid.uuid4().hex}.part"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UsxError(f"the folder for received DICOM objects {folder} cannot be written: {error.strerror}") from error
