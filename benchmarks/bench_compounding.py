"""Compounding speed on the real sweep SpinePhantomFreehand (else one of its size), 0.5 mm, beside the memory's own
speed.

The figures of the PLUS kernels on a machine of two cores: 150 frames/s (nearest, mean), 16 (linear, mean).
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from usx_compounding.bone_response import BoneDetector
from usx_compounding.calibration import read_calibration
from usx_compounding.cells import CellKind
from usx_compounding.compounding import Compounder, CompoundingSettings, Frames, make_engine
from usx_compounding.mask import MaskSettings, Runs, make_mask, run_corners, to_runs
from usx_compounding.region import scout
from usx_compounding.sequence_files import read_sequence
from usx_compounding.sequence_poses import place_frames

SPACING = 0.5
REPEATS = 5
ACTIVE = (187, 12, 631, 601)  # the part of the real images that the probe fills


def load() -> tuple[str, NDArray[np.uint8], NDArray[np.float64]]:
    """Name, (21, 616, 820) images and (21, 4, 4) places in mm."""
    folder = Path(os.environ.get("USX_DATA", "")) / "sweeps"
    if not (folder / "SpinePhantomFreehand.igs.mha").is_file():
        return "a simulated sweep of the same size", *simulated()
    sequence = read_sequence(folder / "SpinePhantomFreehand.igs.mha")
    calibration = read_calibration(folder / "PlusDeviceSet_SpinePhantomFreehandReconstructionOnly.xml")
    return "SpinePhantomFreehand", sequence.images, place_frames(sequence).image_to_world(calibration)


def simulated() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Noise images 1.3 mm apart, slightly tilted."""
    images = np.random.default_rng(0).integers(0, 256, (21, 616, 820), dtype=np.uint8)
    places = np.tile(np.eye(4), (21, 1, 1))
    places[:, :3, :3] = np.array([[0.08, 0.002, 0.0], [0.001, 0.01, 0.08], [0.002, 0.08, 0.01]])
    places[:, 1, 3] = 1.3 * np.arange(21)
    return images, places


def best_time(work: Any) -> float:
    """Shortest of several runs, s; the first one (compilation, caches) is not counted."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def memory_bandwidth(threads: int = 2) -> float:
    """Bytes/s read and written by a copy of 256 MiB, ``threads`` at once."""
    source = np.ones(2**28 // 8, dtype=np.int64)
    target = np.empty_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        seconds = best_time(lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)))
    return 2 * source.nbytes / seconds


def measure(images: NDArray[np.uint8], places: NDArray[np.float64], runs: Runs, kind: CellKind, engine: Any) -> float:
    """Frames/s of compounding all images into a fresh volume of known bounds."""
    lattice, region = scout(places, run_corners(runs), SPACING)
    frames = Frames.in_order(images, places)
    compounder = Compounder(CompoundingSettings(kind), lattice, runs, engine, region)

    def work() -> None:
        compounder.add(frames)
        if device_of(engine) == "cuda":
            compounder.cells()  # waits for the device

    return len(images) / best_time(work)


def device_of(engine: Any) -> str:
    """Kind of device that an engine works on."""
    return str(getattr(engine, "_device", "cpu")).split(":")[0]


def rows_of(name: str, rate: float, pixels: int, kind: CellKind, bandwidth: float) -> list[dict[str, Any]]:
    """Frames/s, pixels/s and bytes/s of one measurement; a pixel reads itself, reads and writes its voxels."""
    reached = 1 if kind.distribution == "nearest" else 8
    bytes_per_pixel = 1 + 2 * reached * kind.bytes_per_voxel
    traffic = rate * pixels * bytes_per_pixel
    return [{"name": f"{name}", "value": rate, "unit": "frames/s"},
            {"name": f"{name}, pixels", "value": rate * pixels / 1e6, "unit": "Mpixel/s"},
            {"name": f"{name}, nominal voxel traffic (cached)", "value": traffic / 1e9, "unit": "GB/s"},
            {"name": f"{name}, traffic / memory bandwidth", "value": traffic / bandwidth, "unit": "ratio"}]


def run(device: str = "cpu") -> list[dict[str, Any]]:
    """All figures: CPU with 1 and 2 threads, or the torch engine on ``device`` cuda."""
    name, images, places = load()
    bandwidth = memory_bandwidth()
    rows: list[dict[str, Any]] = [{"name": f"compounding: memory copy, 2 threads ({name})", "value": bandwidth / 1e9,
                                   "unit": "GB/s"}]
    whole = to_runs(make_mask(MaskSettings(), *images.shape[1:]))
    active = to_runs(make_mask(MaskSettings("rectangle", rectangle=ACTIVE), *images.shape[1:]))
    engines = [("1 thread", make_engine("numba", 1)), ("2 threads", make_engine("numba", 2))]
    if device == "cuda":
        engines = [("CUDA", make_engine("torch", device="cuda"))]
    for distribution in ("nearest", "linear"):
        kind = CellKind(distribution, "mean")  # type: ignore[arg-type]
        for words, engine in engines:
            rate = measure(images, places, whole, kind, engine)
            rows += rows_of(f"compounding {distribution} mean, {words}", rate, images[0].size, kind, bandwidth)
        rate = measure(images, places, active, kind, engines[-1][1])
        rows.append({"name": f"compounding {distribution} mean, {engines[-1][0]}, active part only", "value": rate,
                     "unit": "frames/s"})
    detector = BoneDetector(MaskSettings("rectangle", rectangle=ACTIVE), images.shape[1:], (0.08, 0.08))
    rows.append({"name": "bone response, 1 thread", "value": 1 / best_time(lambda: detector.response(images[7])),
                 "unit": "frames/s"})
    return rows
