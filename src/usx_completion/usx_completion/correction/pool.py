"""A pool of training examples on disk: files of a hundred spines, made in parallel, read while training."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from usx_common.errors import UsxError
from usx_completion.correction.examples import Example, ExampleMaker
from usx_completion.correction.scene import Scene
from usx_completion.data.generate import one_thread_each
from usx_completion.shape_model import PACKAGED_REAL, load_shape_model

PER_FILE = 100


def write_pool(folder: Path, count: int, seed: int, jobs: int = 2) -> Iterator[tuple[int, int]]:
    """Write ``count`` examples of a seed as ``examples_000000.npz`` .. into a folder, in parallel.

    Yields, file by file, how many spines it holds and how many were left out. Files that are there are kept, so that a
    stopped run goes on; they count as whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [(folder, first, min(PER_FILE, count - first), seed) for first in range(0, count, PER_FILE)]
    there = [part for part in parts if _file(folder, part[1]).exists()]
    for _, _, size, _ in there:
        yield size, 0
    with one_thread_each(), ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from pool.map(_write, [part for part in parts if part not in there])


def read_file(path: Path) -> list[Example]:
    """The examples of one file."""
    with np.load(path) as data:
        arrays = {name: data[name] for name in data.files}
    ends = np.cumsum(arrays.pop("lengths"))
    examples = []
    for k, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        scene = {field.name: arrays[field.name][start:end] if field.name in ("points", "labels")
                 else arrays[field.name][k] for field in fields(Scene)}
        examples.append(Example(Scene(**scene), arrays["vertices"][k].astype(np.float32), arrays["blind_poses"][k],
                                arrays["displaced"][k]))
    return examples


def read_pool(folder: Path, most: int = 0) -> Iterator[Example]:
    """All examples of a folder, or the first ``most``. Raises UsxError where there are none."""
    files = sorted(path for path in folder.glob("examples_*.npz") if not path.stem.endswith(".part"))
    if not files:
        raise UsxError(f"{folder} holds no examples_*.npz: make them with make_pool")
    count = 0
    for path in files:
        for example in read_file(path):
            if 0 < most <= count:
                return
            yield example
            count += 1


def _file(folder: Path, first: int) -> Path:
    return folder / f"examples_{first:06d}.npz"


_makers: dict[int, ExampleMaker] = {}


def _write(task: tuple[Path, int, int, int]) -> tuple[int, int]:
    folder, first, count, seed = task
    if seed not in _makers:
        _makers[seed] = ExampleMaker(load_shape_model(PACKAGED_REAL)[0], seed)
    examples, failed = [], 0
    for number in range(first, first + count):
        try:
            examples.append(_makers[seed].example(number))
        except UsxError:
            failed += 1
    arrays: dict[str, np.ndarray] = {"lengths": np.array([len(e.scene.points) for e in examples])}
    for field in fields(Scene):
        parts = [getattr(example.scene, field.name) for example in examples]
        arrays[field.name] = np.concatenate(parts) if field.name in ("points", "labels") else np.stack(parts)
    arrays["vertices"] = np.stack([example.vertices for example in examples])
    for name in ("blind_poses", "displaced"):
        arrays[name] = np.stack([getattr(example, name) for example in examples])
    partial = _file(folder, first).with_suffix(".part.npz")
    np.savez(partial, allow_pickle=False, **arrays)
    partial.replace(_file(folder, first))
    return len(examples), failed
