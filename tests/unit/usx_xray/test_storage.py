"""Real associations over TCP on the loopback interface: good senders, bad ones, and bytes that are no DICOM at all."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import MRImageStorage

from usx_common.errors import UsxError
from usx_xray.storage import StorageServer, StorageSettings, write_object

DX = "1.2.840.10008.5.1.4.1.1.1.1"


class Received(list):
    def __call__(self, path: Path) -> None:
        self.append(path)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., tuple[StorageServer, Received]]]:
    servers = []

    def start(**settings: object) -> tuple[StorageServer, Received]:
        received = Received()
        values = {"port": 0, "folder": tmp_path / "store", "idle_timeout": 2.0, "object_timeout": 3.0, **settings}
        servers.append(StorageServer(StorageSettings(**values), received))  # type: ignore[arg-type]
        return servers[-1], received
    yield start
    for server in servers:
        server.close()


def caller(server: StorageServer, title: str = "SENDER", called: str = "USX", uid: str = DX):
    entity = AE(ae_title=title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10.0
    entity.add_requested_context(uid, ["1.2.840.10008.1.2.1"])
    entity.add_requested_context("1.2.840.10008.1.1")
    return entity.associate("127.0.0.1", server.port, ae_title=called)


def settled(server: StorageServer, seconds: float = 12.0) -> dict[str, int]:
    """Rejections of objects once every connection is accounted for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.associations.snapshot().pending:
        time.sleep(0.02)
    account, objects = server.associations.snapshot(), server.objects.snapshot()
    assert account.pending == 0 and objects.pending == 0
    return {**account.rejected, **objects.rejected}


def test_an_object_is_stored_under_a_name_of_our_own(serve: Callable, dx_file: Callable[..., Path]) -> None:
    server, received = serve()
    dataset = pydicom.dcmread(dx_file(SOPInstanceUID="1.2.3.4.5"))
    association = caller(server)
    assert association.is_established and association.send_c_echo().Status == 0x0000
    for _ in range(2):
        assert association.send_c_store(dataset).Status == 0x0000
    association.release()
    assert settled(server) == {} and server.objects.snapshot().used == 2
    assert len(set(received)) == 2
    for path in received:
        assert path.parent == server.settings.folder and path.suffix == ".dcm" and len(path.stem) == 32
        np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array, dataset.pixel_array)
    assert sorted(server.settings.folder.iterdir()) == sorted(received)


def test_path_in_the_data_set_goes_nowhere(serve: Callable, dx_file: Callable[..., Path], tmp_path: Path) -> None:
    server, received = serve()
    dataset = pydicom.dcmread(dx_file())
    dataset.PatientID = "../../escape"
    dataset.SOPInstanceUID = "1.2.3"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    association = caller(server)
    assert association.send_c_store(dataset).Status == 0x0000
    association.release()
    assert received[0].parent == server.settings.folder
    assert {path.name for path in tmp_path.iterdir()} == {"x.dcm", "store"}


@pytest.mark.parametrize(("title", "called"), [("STRANGER", "USX"), ("SENDER", "OTHER")])
def test_unknown_titles_are_rejected(serve: Callable, title: str, called: str) -> None:
    server, _ = serve(callers=("SENDER",))
    association = caller(server, title, called)
    assert not association.is_established and association.is_rejected
    assert settled(server) == {"not_admitted": 1}
    good = caller(server)
    assert good.is_established
    good.release()


def test_other_kinds_of_objects_find_no_context(serve: Callable) -> None:
    server, _ = serve()
    association = caller(server, uid=MRImageStorage)
    assert [str(context.abstract_syntax) for context in association.accepted_contexts] == ["1.2.840.10008.1.1"]
    association.release()
    assert settled(server) == {}


def test_too_large_an_object_ends_the_association(serve: Callable, dx_file: Callable[..., Path]) -> None:
    server, received = serve(object_bytes=100_000)
    small, large = pydicom.dcmread(dx_file()), pydicom.dcmread(dx_file(np.zeros((600, 600), np.uint16), name="l.dcm"))
    association = caller(server)
    for _ in range(30):  # many small ones are no large one
        assert association.send_c_store(small).Status == 0x0000
    assert "Status" not in association.send_c_store(large)  # no answer: the connection is gone
    assert settled(server) == {"too_large": 1}
    assert len(received) == 30


def test_full_folder(serve: Callable, dx_file: Callable[..., Path]) -> None:
    server, received = serve(folder_bytes=10_000)
    dataset = pydicom.dcmread(dx_file())
    association = caller(server)
    assert [association.send_c_store(dataset).Status for _ in range(2)] == [0x0000, 0xA700]
    association.release()
    assert settled(server) == {"folder_full": 1} and len(received) == 1


def request() -> bytes:
    """An A-ASSOCIATE-RQ for DX with explicit little endian."""
    def entry(kind: int, body: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(body)) + body
    context = entry(0x20, b"\x01\0\0\0" + entry(0x30, DX.encode()) + entry(0x40, b"1.2.840.10008.1.2.1"))
    user = entry(0x50, entry(0x51, struct.pack(">L", 16384)) + entry(0x52, b"1.2.3"))
    body = (struct.pack(">HH", 1, 0) + b"USX".ljust(16) + b"SENDER".ljust(16) + bytes(32)
            + entry(0x10, b"1.2.840.10008.3.1.1.1") + context + user)
    return struct.pack(">BBL", 1, 0, len(body)) + body


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\xff\xff\xff\xff" + b"A" * 500, b"\x04\x00\x00\x00\x00\x10" + b"\0" * 16,
    b"\x01\x00\x00\x00\x00\x05hello", b"\x02", request() + b"\x04\x00\xff\xff\xff\xf0" + b"\0" * 70_000,
    request() + b"\x04\x00\x00\x00\x00\x08\x00\x00\x00\x04\x01\x03ab", request()[:60]])
def test_garbage_is_survived(serve: Callable, dx_file: Callable[..., Path], data: bytes) -> None:
    server, received = serve()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5.0) as peer:
        try:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(4096):
                pass
        except OSError:
            pass
    settled(server)
    association = caller(server)
    assert association.send_c_store(pydicom.dcmread(dx_file())).Status == 0x0000
    association.release()
    assert len(received) == 1


def test_a_peer_that_drips_bytes_is_cut_off(serve: Callable) -> None:
    server, received = serve(idle_timeout=1.0)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10.0) as peer:
        peer.sendall(request())
        assert peer.recv(4096)[:1] == b"\x02"
        peer.sendall(b"\x04\x00\x00\x00\x40\x00")
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - began < 10.0:
                peer.sendall(b"\0")
                time.sleep(0.1)
    assert settled(server).get("too_slow") == 1 and not received


def test_port_taken_is_told(serve: Callable) -> None:
    server, _ = serve()
    with pytest.raises(UsxError, match=f"port {server.port} is taken"):
        serve(port=server.port)


@pytest.mark.parametrize(("settings", "words"), [
    ({"address": "0.0.0.0"}, "allowed_ae_titles"), ({"address": "myhost"}, "no IP address"),
    ({"title": ""}, "AE title"),
    ({"callers": ("A" * 17,)}, "AE title"), ({"address": "192.0.2.1", "callers": ("A",)}, "failed")])
def test_unsafe_settings_are_refused(serve: Callable, settings: dict, words: str) -> None:
    with pytest.raises(UsxError, match=words):
        serve(**settings)


def test_write_leaves_nothing_behind_when_the_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = StorageSettings(0, tmp_path)
    monkeypatch.setattr(Path, "rename", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_object(b"123", settings)
    assert list(tmp_path.iterdir()) == []
