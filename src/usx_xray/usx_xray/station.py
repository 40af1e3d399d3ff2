"""The X-ray station: files, received objects, plain images and clicks go in; X-ray, bodies and CT bone come out.

Everything that takes time runs on one worker thread, in the order of arrival. No ROS here.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from usx_common.counters import StreamCounters
from usx_common.errors import UsxError
from usx_common.rates import LatencyMeter
from usx_common.worker import Worker
from usx_xray import ct_series, parameters
from usx_xray.bodies import Segmentation, segment_bodies
from usx_xray.body_points import bodies_to_points, label_image
from usx_xray.ct_bone import bone_surface
from usx_xray.dicom_file import read_header
from usx_xray.folder_watch import FolderWatch
from usx_xray.geometry import geometry_of_camera
from usx_xray.refusal import Refused
from usx_xray.seeds import ClickCollector, Seed, seeds_of_parameters
from usx_xray.series_inbox import ReadySeries, SeriesInbox
from usx_xray.storage import StorageServer
from usx_xray.xray_image import XrayImage, xray_of_header

MOST_WAITING = 25_000
SEGMENTATION_PARAMETERS = ("seed_", "minimum_confidence", "body_point_spacing")


@dataclass(frozen=True)
class XrayResult:
    """``image`` as received; ``points`` (N, 3) mm, frame ``xray``, with ``labels`` (N,); ``label_pixels`` (rows,
    columns) uint8. The last three are None where no segmentation was asked for or it failed."""

    image: XrayImage
    points: NDArray[np.float64] | None = None
    labels: NDArray[np.float64] | None = None
    label_pixels: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class BoneResult:
    """``points`` (N, 3) of the bone's surface, mm, frame ``cbct`` (DICOM patient LPS)."""

    points: NDArray[np.float64]
    stamp_ns: int


@dataclass(frozen=True)
class Status:
    """``fine``: nothing needs the operator; ``text``: one sentence; ``facts`` for the diagnostics."""

    fine: bool
    text: str
    facts: dict[str, object]


@dataclass(frozen=True)
class _PlainImage:
    pixels: NDArray
    camera_matrix: NDArray
    stamp_ns: int


@dataclass(frozen=True)
class _Job:
    """Work for the thread; ``count`` arrivals of ``stream`` wait for its decision. ``about``: for the operator."""

    run: Callable[[], None]
    about: str
    stream: StreamCounters | None = None
    count: int = 1


class XrayStation:
    """Owns the folders, the C-STORE listener and the current X-ray. ``values``: the node's parameters by name.

    ``publish`` is called on the worker thread with an XrayResult or a BoneResult; ``log`` with a sentence for the
    operator. Raises UsxError when the listener cannot start.
    """

    def __init__(self, values: dict[str, Any], publish: Callable[[XrayResult | BoneResult], None],
                 log: Callable[[str], None]) -> None:
        self._values, self._publish, self._log = dict(values), publish, log
        self.files, self.images, self.clicks = (StreamCounters(name) for name in ("files", "images", "clicks"))
        self.latency = LatencyMeter()
        self._lock = threading.Lock()
        self._next_image: _PlainImage | None = None
        self._source: Path | _PlainImage | None = None
        self._xray: XrayImage | None = None
        self._collector = ClickCollector(values["click_labels"])
        self._bodies_published = False
        self._xray_text, self._xray_fine = "waiting for an X-ray", True
        self._ct_text, self._ct_fine = "no CT series", True
        self._watches = [FolderWatch(Path(values[name]), values["file_quiet_time"])
                         for name in ("watch_folder", "cbct_folder") if values[name]]
        self._inbox = SeriesInbox(values["series_quiet_time"])
        self._seen_uids: dict[str, Path] = {}
        self._closing = False
        self._worker: Worker[_Job] = Worker(lambda job: job.run(), "xray_station", MOST_WAITING, "queue",
                                            on_drop=self._dropped, on_error=self._failed)
        self.server: StorageServer | None = None
        self._store_folder: Path | None = None
        self._start_listener()

    def poll(self, now: float | None = None) -> None:
        """Look for new files and complete series; call a few times a second. ``now``: s, steady clock."""
        now = time.monotonic() if now is None else now
        for watch in self._watches:
            for path in watch.poll(now):
                self.add_file(path)
        for series in self._inbox.ready(now):
            self._worker.submit(_Job(partial(self._read_series, series), "CT series", self.files, series.fresh))

    def add_file(self, path: Path) -> None:
        """Take one DICOM file."""
        self.files.received()
        self._worker.submit(_Job(lambda: self._read_file(path), "file", self.files))

    def add_image(self, pixels: NDArray, camera_matrix: NDArray, stamp_ns: int) -> None:
        """Take a plain image (rows, columns) with its K (3, 3); ``images`` has counted it as received.

        One that still waits when the next comes is dropped.
        """
        with self._lock:
            replaced, self._next_image = self._next_image, _PlainImage(pixels, camera_matrix, stamp_ns)
        if replaced is None:
            self._worker.submit(_Job(self._use_image, "image", self.images))
        else:
            self.images.rejected("superseded")

    def add_click(self, column: float, row: float) -> None:
        """Take a click at a pixel of the current X-ray."""
        self.clicks.received()
        self._worker.submit(_Job(lambda: self._use_click(column, row), "click", self.clicks))

    def change(self, values: dict[str, Any]) -> None:
        """Take changed parameters; the current X-ray is looked at again."""
        self._worker.submit(_Job(lambda: self._use_values(values), "change of parameters"))

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was handed over is done."""
        return self._worker.flush(timeout)

    def status(self) -> Status:
        """What the station is doing, in words."""
        missing = [watch.folder.name or str(watch.folder) for watch in self._watches if not watch.exists]
        texts = [self._xray_text, self._ct_text]
        if missing:
            texts.append(f"folder {', '.join(missing)} does not exist (yet)")
        facts: dict[str, object] = {"files_arriving": sum(watch.waiting for watch in self._watches),
                                    "series_files_waiting": self._inbox.waiting}
        if self.server is not None:
            facts["dicom_listener"] = f"{self.server.settings.title}@{self.server.settings.address}:{self.server.port}"
        return Status(self._xray_fine and self._ct_fine and not missing, "; ".join(texts), facts)

    def close(self) -> None:
        """Stop listening and working; received objects in a temporary folder are deleted, what waits is counted."""
        server, self.server = self.server, None
        if server is not None:
            server.close()
        self._closing = True
        self._worker.close()
        for series in self._inbox.ready(math.inf):
            self.files.rejected("shutdown", series.fresh)
        if self._store_folder is not None:
            shutil.rmtree(self._store_folder, ignore_errors=True)

    def _start_listener(self) -> None:
        stored = parameters.storage(self._values)
        if stored is None:
            return
        if not self._values["dicom_store_folder"]:
            self._store_folder = stored.folder
        try:
            self.server = StorageServer(stored, self.add_file)
        except UsxError:
            self.close()
            raise

    def _dropped(self, job: _Job) -> None:
        if job.stream is self.images:
            with self._lock:
                self._next_image = None
        if job.stream is not None:
            job.stream.rejected("shutdown" if self._closing else "queue_full", job.count)

    def _failed(self, job: _Job, error: Exception) -> None:
        """Count what a job left undecided; jobs count as used only when all else is done."""
        if job.stream is not None:
            job.stream.rejected("internal_error", job.count)
        # The place, not the error's words: they may quote the file, and with it the patient.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        text = f"internal error with a {job.about}: {type(error).__name__} at {where}"
        if job.about == "CT series":
            self._ct_text, self._ct_fine = text, False
        else:
            self._xray_text, self._xray_fine = text, False
        self._log(text)

    def _read_file(self, path: Path) -> None:
        try:
            header = read_header(path, parameters.limits(self._values))
            modality = str(header.get("Modality", "") or "")
            if modality in ct_series.MODALITIES:
                ct_series.slices_of(path, header)
                if not self._inbox.add(path, header, time.monotonic()):
                    raise Refused("duplicate", "the same CT object has been received before")
                return
            uid = str(header.get("SOPInstanceUID", "") or "")
            if uid and self._seen_uids.get(uid, path) != path:
                raise Refused("duplicate", "the same X-ray object has been received before")
            image = xray_of_header(path, header, parameters.overrides(self._values), parameters.limits(self._values))
        except Refused as error:
            self._refused_xray(f"a file was refused ({error.reason}): {error}; inspect_dicom shows which", error.reason)
            self.files.rejected(error.reason)
            return
        self._source = path
        self._new_xray(image)
        self._seen_uids[uid] = path
        self.files.used()

    def _refused_xray(self, text: str, reason: str) -> None:
        self._log(text)
        if self._xray is None and reason != "duplicate":
            self._xray_text, self._xray_fine = text, False

    def _read_series(self, series: ReadySeries) -> None:
        started = time.monotonic()
        try:
            slices = [item for path, header in series.files for item in ct_series.slices_of(path, header)]
            limits = ct_series.SeriesLimits(file=parameters.limits(self._values))
            volume = ct_series.series_of_slices(slices, limits)
            points = bone_surface(volume.volume, parameters.bone(self._values))
        except Refused as error:
            self._ct_text, self._ct_fine = f"CT series of {len(series.files)} files refused: {error}", False
            self._log(self._ct_text)
            self.files.rejected(error.reason, series.fresh)
            return
        self.latency.add(time.monotonic() - started)
        size = " x ".join(str(count) for count in volume.volume.grid.size)
        self._ct_text, self._ct_fine = f"CT of {size} voxels with {len(points)} bone points", True
        self._publish(BoneResult(points, volume.stamp_ns))
        self.files.used(series.fresh)

    def _use_image(self) -> None:
        with self._lock:
            plain, self._next_image = self._next_image, None
        if plain is None:
            return
        try:
            image = self._image_of_plain(plain)
        except Refused as error:
            self._refused_xray(f"an image was refused ({error.reason}): {error}", error.reason)
            self.images.rejected(error.reason)
            return
        self._source = plain
        self._new_xray(image)
        self.images.used()

    def _image_of_plain(self, plain: _PlainImage) -> XrayImage:
        geometry = geometry_of_camera(plain.camera_matrix, self._values["source_to_midplane"])
        return XrayImage(plain.pixels.astype(np.float32), geometry, plain.stamp_ns)

    def _new_xray(self, image: XrayImage) -> None:
        self._xray = image
        self._collector.clear()
        self._segment()

    def _use_click(self, column: float, row: float) -> None:
        if self._xray is None:
            self._log("a click was refused: there is no X-ray yet")
            self.clicks.rejected("no_xray")
            return
        rows, columns = self._xray.pixels.shape
        if not (-0.5 <= column < columns - 0.5 and -0.5 <= row < rows - 0.5):
            self._log(f"a click at column {column:g}, row {row:g} was refused: the image has {columns} x {rows} pixels")
            self.clicks.rejected("outside_image")
            return
        seed = self._collector.click(column, row, self._xray.geometry)
        self._log(f"click taken as {seed.level}; {len(self._collector.seeds)} bodies clicked")
        # One click does not tell how the spine runs through the image.
        if len(self._collector.seeds) >= 2:
            self._segment()
        self.clicks.used()

    def _use_values(self, values: dict[str, Any]) -> None:
        self._values.update(values)
        if "click_labels" in values:
            self._collector = ClickCollector(values["click_labels"])
        if self._source is None or self._xray is None:
            return
        clicked = self._collector
        try:
            if isinstance(self._source, Path):
                limits = parameters.limits(self._values)
                header = read_header(self._source, limits)
                self._xray = xray_of_header(self._source, header, parameters.overrides(self._values), limits)
            else:
                self._xray = self._image_of_plain(self._source)
        except Refused as error:
            self._xray_text, self._xray_fine = f"with the changed parameters the X-ray is refused: {error}", False
            self._log(self._xray_text)
            return
        self._collector = clicked
        self._segment()

    def _current_seeds(self) -> list[Seed]:
        if self._collector.seeds:
            return list(self._collector.seeds)
        return seeds_of_parameters(*(self._values[name] for name in ("seed_labels", "seed_columns", "seed_rows")))

    def _segment(self) -> None:
        assert self._xray is not None
        started = time.monotonic()
        result = XrayResult(self._xray)
        try:
            found = segment_bodies(self._xray.pixels, self._xray.geometry, self._current_seeds(),
                                   self._values["minimum_confidence"])
            self._tell(found)
        except Refused as error:
            found = Segmentation(())
            self._xray_text, self._xray_fine = f"X-ray without bodies: {error}", False
            self._log(self._xray_text)
        if found.bodies or self._bodies_published:
            points, labels = bodies_to_points(found.bodies, self._xray.geometry, self._values["body_point_spacing"])
            pixels = label_image(found.bodies, self._xray.pixels.shape)
            result = dataclasses.replace(result, points=points, labels=labels, label_pixels=pixels)
            self._bodies_published = True
        self.latency.add(time.monotonic() - started)
        self._publish(result)

    def _tell(self, found: Segmentation) -> None:
        names = ", ".join(f"{body.level} {body.confidence:.0%}" for body in found.bodies) or "none"
        problems = "; ".join(sentence for _, sentence in found.problems)
        self._xray_text = f"X-ray with bodies (confidence): {names}" + (f"; {problems}" if problems else "")
        self._xray_fine = not found.problems
        if problems:
            self._log(problems)
