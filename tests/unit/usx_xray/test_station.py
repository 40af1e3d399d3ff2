"""The whole station without ROS: what goes in is accounted for, what comes out is right."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from usx_common.parameters import validate
from usx_xray import station
from usx_xray.parameters import TABLE
from usx_xray.station import BoneResult, XrayResult, XrayStation


class Bench:
    def __init__(self, **values: object) -> None:
        table = {parameter.name: validate(parameter, values.get(parameter.name, parameter.default))
                 for parameter in TABLE}
        self.results: list = []
        self.log: list[str] = []
        self.station = XrayStation(table, self.results.append, self.log.append)

    def settle(self) -> None:
        """Poll until files and series are through."""
        for _ in range(4):
            now = time.monotonic() + 1000.0
            self.station.poll(now)
            assert self.station.flush(60.0)


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**values: object) -> Bench:
        made.append(Bench(file_quiet_time=0.0, series_quiet_time=0.1, **values))
        return made[-1]
    yield make
    for item in made:
        item.station.close()


def stored(radiograph) -> np.ndarray:
    low, high = radiograph.pixels.min(), radiograph.pixels.max()
    return ((radiograph.pixels - low) / (high - low) * 4095).astype(np.uint16)


def xray_file(dx_file: Callable[..., Path], radiograph, **attributes: object) -> Path:
    return dx_file(stored(radiograph), DistanceSourceToDetector="1080", ImagerPixelSpacing=["0.3", "0.3"], **attributes)


def seed_values(radiograph) -> dict[str, list]:
    return {"seed_labels": [s.label for s in radiograph.seeds], "seed_columns": [s.column for s in radiograph.seeds],
            "seed_rows": [s.row for s in radiograph.seeds]}


def test_file_with_seeds_gives_bodies(bench: Callable[..., Bench], dx_file: Callable[..., Path],
                                      make_radiograph: Callable) -> None:
    radiograph = make_radiograph(0, jitter=2.0)
    path = xray_file(dx_file, radiograph, AcquisitionDate="20260102", AcquisitionTime="030405")
    item = bench(watch_folder=str(path.parent), **seed_values(radiograph))
    assert item.station.status().text.startswith("waiting for an X-ray")
    item.settle()
    (result,) = item.results
    assert isinstance(result, XrayResult) and result.image.stamp_ns == 1767323045 * 10**9
    assert set(result.labels) == {20.0, 21.0, 22.0, 23.0, 24.0} and (result.points[:, 2] == 750.0).all()
    assert set(np.unique(result.label_pixels)) == {0, 20, 21, 22, 23, 24}
    account = item.station.files.snapshot()
    assert (account.received, account.used, account.pending) == (1, 1, 0)
    assert item.station.status().fine and "L3" in item.station.status().text


def test_every_file_is_used_or_rejected(bench: Callable[..., Bench], dx_file: Callable[..., Path],
                                        ct_folder: Callable, tmp_path: Path) -> None:
    dx_file(name="1_no_geometry.dcm", ImagerPixelSpacing=None)
    good = dx_file(name="2_good.dcm")
    (tmp_path / "3_copy.dcm").write_bytes(good.read_bytes())
    dx_file(name="4_mammogram.dcm", Modality="MG")
    (tmp_path / "5_text.txt").write_text("hello")
    (tmp_path / "6.part").write_text("not yet")
    volume = np.full((6, 24, 24), -1000)
    volume[:, 6:18, 6:18] = 900
    ct_folder(volume)
    ct_folder(volume, folder="gap")[2].unlink()
    item = bench(watch_folder=str(tmp_path))
    item.settle()
    account = item.station.files.snapshot()
    assert account.received == 16 and account.pending == 0
    assert account.used == 1 + 6
    assert account.rejected == {"no_geometry": 1, "duplicate": 1, "modality": 1, "not_dicom": 1, "missing_slices": 5}
    kinds = sorted(type(result).__name__ for result in item.results)
    assert kinds == ["BoneResult", "XrayResult"]
    bone = next(result for result in item.results if isinstance(result, BoneResult))
    assert bone.points[:, 2].min() >= 30.0 and bone.points[:, 2].max() <= 35.0
    assert not item.station.status().fine  # no seeds, and a series was refused: the operator must know


def test_clicks_make_bodies(bench: Callable[..., Bench], dx_file: Callable[..., Path],
                            make_radiograph: Callable) -> None:
    radiograph = make_radiograph(0, jitter=2.0)
    item = bench()
    item.station.add_click(10.0, 10.0)
    assert item.station.flush(10.0)
    item.station.add_file(xray_file(dx_file, radiograph))
    for column, row in [(-5.0, 10.0), (10.0, 1e6), (float("nan"), 1.0)]:
        item.station.add_click(column, row)
    for seed in radiograph.seeds:
        item.station.add_click(seed.column, seed.row)
    assert item.station.flush(60.0)
    account = item.station.clicks.snapshot()
    assert account.rejected == {"no_xray": 1, "outside_image": 3} and account.used == 5 and account.pending == 0
    assert [len(set(r.labels)) for r in item.results if r.labels is not None] == [2, 3, 4, 5]


def test_plain_images_and_changed_parameters(bench: Callable[..., Bench], make_radiograph: Callable) -> None:
    radiograph = make_radiograph(0)
    item = bench(**seed_values(radiograph))
    matrix = radiograph.geometry.camera_matrix
    item.station.images.received(2)
    item.station.add_image(stored(radiograph), matrix, 5)
    assert item.station.flush(60.0)
    assert item.station.images.snapshot().rejected == {"no_geometry": 1}
    item.station.change({"source_to_midplane": 750.0})
    item.station.add_image(stored(radiograph), matrix, 6)
    item.station.flush(60.0)
    item.station.change({"source_to_midplane": 760.0})
    assert item.station.flush(60.0)
    assert [result.image.stamp_ns for result in item.results] == [6, 6]
    assert [result.points[0, 2] for result in item.results] == [750.0, 760.0]
    account = item.station.images.snapshot()
    assert account.used == 1 and account.pending == 0


def test_a_new_xray_takes_the_old_bodies_away(bench: Callable[..., Bench], dx_file: Callable[..., Path],
                                              make_radiograph: Callable) -> None:
    radiograph = make_radiograph(0)
    item = bench(**seed_values(radiograph))
    item.station.add_file(xray_file(dx_file, radiograph, name="a.dcm"))
    item.station.add_file(dx_file(name="b.dcm"))  # too small for the seeds
    assert item.station.flush(60.0)
    assert len(item.results[0].points) > 1000 and len(item.results[1].points) == 0
    assert "L1" in item.station.status().text and not item.station.status().fine


def test_received_objects_are_used_and_no_log_names_the_patient(bench: Callable[..., Bench],
                                                                dx_file: Callable[..., Path], capfd, caplog) -> None:
    import socket

    from pynetdicom import AE
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    item = bench(dicom_port=port, dicom_timeout=5.0)
    entity = AE(ae_title="SENDER")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.1.1", ["1.2.840.10008.1.2.1"])
    association = entity.associate("127.0.0.1", port, ae_title="USX")
    sent = [pydicom.dcmread(dx_file(**attributes))
            for attributes in ({}, {"ImagerPixelSpacing": None}, {"PatientBirthDate": "Verysecret"})]
    capfd.readouterr()
    for dataset in sent:
        assert association.send_c_store(dataset).Status == 0
    association.release()
    assert item.station.flush(30.0)
    account = item.station.files.snapshot()
    assert account.received == 3 and account.used == 2 and account.rejected == {"no_geometry": 1}
    folder = item.station.server.settings.folder
    item.station.close()
    assert not folder.exists()  # the temporary one
    out = capfd.readouterr()
    said = "\n".join([out.out, out.err, *item.log, item.station.status().text,
                      *(record.getMessage() for record in caplog.records if record.name.startswith("usx"))])
    assert not re.search("secret|424242|Person", said, re.IGNORECASE)


def test_missing_folder_is_told(bench: Callable[..., Bench], tmp_path: Path) -> None:
    item = bench(watch_folder=str(tmp_path / "later"))
    item.settle()
    assert not item.station.status().fine and "later" in item.station.status().text


def broken(*arguments: object) -> None:
    raise KeyError("Verysecret^Person")


@pytest.mark.parametrize("stage", ["xray_of_header", "segment_bodies"])
def test_an_error_of_the_software_leaves_no_file_pending(bench: Callable[..., Bench], dx_file: Callable[..., Path],
                                                         monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    item, path = bench(), dx_file()
    with monkeypatch.context() as patch:
        patch.setattr(station, stage, broken)
        item.station.add_file(path)
        assert item.station.flush(30.0)
    account = item.station.files.snapshot()
    assert (account.used, account.rejected, account.pending) == (0, {"internal_error": 1}, 0)
    assert "internal error with a file: KeyError" in item.station.status().text and not item.station.status().fine
    assert not any("secret" in text for text in [*item.log, item.station.status().text])
    again = path.with_name("again.dcm")
    again.write_bytes(path.read_bytes())
    item.station.add_file(again)  # what failed has not been used: its copy is no duplicate
    assert item.station.flush(30.0) and item.station.files.snapshot().used == 1


def test_an_error_of_the_software_leaves_no_series_pending(bench: Callable[..., Bench], ct_folder: Callable,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    item = bench()
    monkeypatch.setattr(station, "bone_surface", broken)
    for path in ct_folder(np.zeros((5, 24, 24))):
        item.station.add_file(path)
    assert item.station.flush(30.0)
    item.settle()
    account = item.station.files.snapshot()
    assert (account.rejected, account.pending) == ({"internal_error": 5}, 0)
    assert "internal error with a CT series" in item.station.status().text and not item.station.status().fine


def test_an_error_of_the_software_leaves_no_image_or_click_pending(bench: Callable[..., Bench],
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    item = bench(source_to_midplane=750.0)
    matrix = np.array([[3600.0, 0, 30], [0, 3600, 20], [0, 0, 1]])
    item.station.images.received(2)
    item.station.add_image(np.ones((40, 60), np.uint16), matrix, 5)
    assert item.station.flush(30.0)
    monkeypatch.setattr(station, "segment_bodies", broken)
    item.station.add_image(np.ones((40, 60), np.uint16), matrix, 6)
    for column in (5.0, 50.0):
        item.station.add_click(column, 20.0)
    assert item.station.flush(30.0)
    images, clicks = item.station.images.snapshot(), item.station.clicks.snapshot()
    assert (images.used, images.rejected, images.pending) == (1, {"internal_error": 1}, 0)
    assert clicks.pending == 0 and clicks.used + sum(clicks.rejected.values()) == 2


def test_what_waits_at_shutdown_is_counted(bench: Callable[..., Bench], dx_file: Callable[..., Path],
                                           ct_folder: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    item = bench()
    for path in ct_folder(np.zeros((5, 24, 24))):
        item.station.add_file(path)
    assert item.station.flush(30.0)  # the series is not complete yet
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(station, "read_header", lambda *_: (begun.set(), go_on.wait(30.0), broken()))
    item.station.images.received()
    item.station.add_file(dx_file())
    assert begun.wait(30.0)
    item.station.add_file(dx_file())
    item.station.add_image(np.ones((40, 60), np.uint16), np.eye(3), 5)
    item.station.add_click(1.0, 1.0)
    threading.Timer(0.2, go_on.set).start()
    item.station.close()
    item.station.add_file(dx_file())
    files = item.station.files.snapshot()
    assert (files.rejected, files.pending) == ({"internal_error": 1, "shutdown": 7}, 0)
    assert item.station.images.snapshot().rejected == {"shutdown": 1}
    assert item.station.clicks.snapshot().rejected == {"shutdown": 1}
