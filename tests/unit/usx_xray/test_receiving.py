"""Watched folders, series that arrive file by file, images without their partner."""

import os
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from usx_common.counters import StreamCounters
from usx_xray.folder_watch import FolderWatch, is_temporary
from usx_xray.pairing import PendingImages
from usx_xray.series_inbox import SeriesInbox


def test_a_file_is_reported_once_and_only_when_it_is_still(tmp_path: Path) -> None:
    watch = FolderWatch(tmp_path, quiet=1.0)
    growing = tmp_path / "a"
    growing.write_bytes(b"1")
    assert watch.poll(0.0) == [] and watch.waiting == 1
    growing.write_bytes(b"12")
    assert watch.poll(1.0) == []  # it has grown: the time begins anew
    assert watch.poll(1.9) == []
    assert watch.poll(2.0) == [growing]
    assert watch.poll(9.0) == [] and watch.waiting == 0


def test_a_file_written_anew_is_reported_again(tmp_path: Path) -> None:
    watch = FolderWatch(tmp_path, quiet=0.0)
    path = tmp_path / "a"
    path.write_bytes(b"1")
    watch.poll(0.0)
    assert watch.poll(0.1) == [path]
    path.write_bytes(b"other")
    watch.poll(0.2)
    assert watch.poll(0.3) == [path]


@pytest.mark.parametrize("name", [".hidden", "x.part", "x.TMP", "x.dcm~", "~x", "x.crdownload", "DICOMDIR"])
def test_temporary_names(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"1")
    watch = FolderWatch(tmp_path, quiet=0.0)
    assert is_temporary(name) and watch.poll(0.0) == watch.poll(1.0) == []


def test_subfolders_links_and_a_folder_that_comes_later(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    watch = FolderWatch(folder, quiet=0.0)
    assert not watch.exists and watch.poll(0.0) == []
    (folder / "sub").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    (folder / "link").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    inner = folder / "sub" / "b"
    inner.write_bytes(b"1")
    os.mkfifo(folder / "sub" / "x.part")
    watch.poll(1.0)
    assert watch.exists and watch.poll(2.0) == [inner]
    inner.unlink()
    assert watch.poll(3.0) == []


def header(series: str, uid: str) -> Dataset:
    dataset = Dataset()
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = series, uid
    return dataset


def test_series_is_ready_after_a_quiet_time_and_again_with_late_files() -> None:
    inbox = SeriesInbox(quiet=2.0)
    for index in range(3):
        assert inbox.add(Path(f"{index}"), header("1.1", f"1.{index}"), float(index))
    inbox.add(Path("x"), header("2.2", "2.9"), 3.5)
    assert inbox.ready(3.9) == [] and inbox.waiting == 4
    (first,) = inbox.ready(4.0)
    assert [str(path) for path, _ in first.files] == ["0", "1", "2"] and first.fresh == 3
    assert inbox.ready(4.5) == []
    assert not inbox.add(Path("copy"), header("1.1", "1.0"), 5.0)  # the same object under another name
    inbox.add(Path("3"), header("1.1", "1.3"), 5.0)
    late = [ready for ready in inbox.ready(9.0) if len(ready.files) == 4]
    assert late[0].fresh == 1


def test_every_image_is_counted_once() -> None:
    counters = StreamCounters("images")
    pending = PendingImages(counters, most=2, timeout=1.0)
    pending.arrived(1, 0.0)
    pending.arrived(2, 0.1)
    pending.arrived(3, 0.2)  # pushes out the first
    assert not pending.paired(1) and pending.paired(3)
    counters.used()
    pending.expire(1.05)
    account = counters.snapshot()
    assert account.rejected == {"no_camera_info": 1} and account.pending == 1
    pending.expire(1.2)
    account = counters.snapshot()
    assert account.rejected == {"no_camera_info": 2} and account.pending == 0
