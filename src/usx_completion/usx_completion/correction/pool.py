"""A pool of training examples on disk: files of a hundred spines, made in parallel, read while training."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from usx_common.errors import UsxError
from usx_common.processes import one_thread_pool
from usx_completion.correction.examples import Example, ExampleMaker
from usx_completion.correction.pool_identity import NAME, BadPool, PoolIdentity
from usx_completion.correction.scene import Scene
from usx_completion.data.presets import SampleSettings, preset_named
from usx_completion.data.spine_source import SourceChoice, open_source
from usx_completion.shape_model import PACKAGED_REAL, ShapeModel, load_shape_model

PER_FILE = 100
PRESETS = ("paper", "realistic")
SOURCES = ("real", "real", "real", "model")  # each for every preset, then the next; a fourth is of generated spines
OF_POINTS = ("points", "labels")  # one row a point; all others have one row an example
OF_EXAMPLES = ("vertices", "blind_poses", "displaced")
DAMAGE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError)


class Maker(Protocol):
    """Makes examples."""

    def example(self, number: int) -> Example:
        """Example ``number``, always the same. Raises UsxError for a spine that gives none, OSError for a full disk."""


def examined(model: ShapeModel, identity: PoolIdentity) -> Maker:
    """Of spines that presets examine."""
    return ExampleMaker(model, identity.seed, identity.presets, identity.sources)


@dataclass(frozen=True)
class Recipe:
    """What a pool is made from: ``presets`` in turn, and each of the ``sources`` for all of them before the next;
    ``held``: all that they hold, as texts; ``maker``: a function of a module, since other processes call it."""

    presets: tuple[str, ...]
    sources: tuple[str, ...]
    held: tuple[str, ...]
    maker: Callable[[ShapeModel, PoolIdentity], Maker] = examined

    def identity(self, seed: int) -> PoolIdentity:
        """What all files of a seed share."""
        made_from = hashlib.sha256("\n".join(self.held).encode()).hexdigest()
        return PoolIdentity(seed, 0, 0, self.presets, self.sources, made_from,
                            load_shape_model(PACKAGED_REAL)[1]["sha256"])


def preset_recipe() -> Recipe:
    """Spines examined by the presets, as `make_pool` does."""
    return Recipe(PRESETS, SOURCES, (*(SampleSettings(preset_named(name)).text() for name in PRESETS),
                                     *names_of(SOURCES)))


def names_of(sources: Sequence[str]) -> list[str]:
    """What sets each of the sources apart, for `Recipe.held`."""
    return [open_source(SourceChoice(name)).name for name in dict.fromkeys(sources)]


@dataclass(frozen=True)
class Part:
    """A file to write into ``folder``."""

    folder: Path
    identity: PoolIdentity
    maker: Callable[[ShapeModel, PoolIdentity], Maker] = examined

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.folder / f"examples_{self.identity.first:06d}.npz"


def write_pool(folder: Path, count: int, seed: int, jobs: int = 2, recipe: Recipe | None = None
               ) -> Iterator[tuple[int, int]]:
    """Write ``count`` examples of a seed as ``examples_000000.npz`` .. into a folder, in parallel; by the presets where
    no other ``recipe`` is given.

    Yields, file by file, how many spines it holds and how many were left out. Files that are there are kept, so that a
    stopped run goes on. Raises BadPool where one of them was made from something else, or cannot be read.
    """
    parts = planned_parts(folder, count, seed, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    for part, held in parts:
        if held is not None:
            yield held, part.identity.count - held
    with one_thread_pool(jobs) as pool:
        yield from pool.map(_write, [part for part, held in parts if held is None])


def planned_parts(folder: Path, count: int, seed: int, recipe: Recipe | None = None) -> list[tuple[Part, int | None]]:
    """The files of a pool, each with the number of examples that it holds; None: it is to be written.

    Raises BadPool where a file of the folder was made from something else, or cannot be read.
    """
    recipe = recipe or preset_recipe()
    whole = recipe.identity(seed)
    parts = [Part(folder, replace(whole, first=first, count=min(PER_FILE, count - first)), recipe.maker)
             for first in range(0, count, PER_FILE)]
    there = {}
    for path in _files(folder):
        there[path], made = _told(path)
        made.check(path, next((part.identity for part in parts if part.path == path),
                              replace(whole, first=made.first, count=made.count)))
    return [(part, there.get(part.path)) for part in parts]


def read_file(path: Path) -> list[Example]:
    """The examples of one file, which may be none. Raises BadPool where it is damaged or of another kind."""
    with _opened(path) as data:
        PoolIdentity.of(path, data)
        arrays = {name: data[name] for name in data.files if name != NAME}
        _check_sizes(path, arrays)
        lengths = arrays.pop("lengths")
        ends = np.cumsum(lengths)
        examples = []
        for k, (start, end) in enumerate(zip(ends - lengths, ends, strict=True)):
            scene = {field.name: arrays[field.name][start:end] if field.name in OF_POINTS
                     else arrays[field.name][k] for field in fields(Scene)}
            examples.append(Example(Scene(**scene), arrays["vertices"][k].astype(np.float32), arrays["blind_poses"][k],
                                    arrays["displaced"][k]))
    return examples


def read_pool(folder: Path, most: int = 0) -> Iterator[Example]:
    """All examples of a folder, or the first ``most``.

    Raises BadPool where there are none, where a file is damaged, where two files were not made from the same, or where
    the prior was another shape model than the packaged one.
    """
    first, files = identity_of(folder), _files(folder)
    told = [_told(path) for path in files]
    if not any(size for size, _ in told):
        raise BadPool(f"{folder} holds no example: in all {len(files)} files every spine was left out")
    wanted = replace(first, format=PoolIdentity.format,
                     shape_model=load_shape_model(PACKAGED_REAL)[1]["sha256"])
    for path, (_, made) in zip(files, told, strict=True):
        made.check(path, wanted, place_too=False)
    count = 0
    for path in files:
        for example in read_file(path):
            if 0 < most <= count:
                return
            yield example
            count += 1


def identity_of(folder: Path) -> PoolIdentity:
    """What all files of a folder were made from; ``first`` and ``count`` are 0. Raises BadPool where there are none."""
    files = _files(folder)
    if not files:
        raise BadPool(f"{folder} holds no examples_*.npz: make them with make_pool or make_acquired_pool")
    return replace(_told(files[0])[1], first=0, count=0)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("examples_*.npz") if not path.stem.endswith(".part"))


def _told(path: Path) -> tuple[int, PoolIdentity]:
    """How many examples a file holds, and its identity; no more of it is read."""
    with _opened(path) as data:
        return len(data["lengths"]), PoolIdentity.of(path, data)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The arrays of a file; what damage to it raises while they are read becomes BadPool."""
    try:
        with np.load(path, allow_pickle=False) as data:
            yield data
    except UsxError:
        raise
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadPool(f"{path} is damaged: {reason}; delete it, and what made the folder makes it again") from error


def _check_sizes(path: Path, arrays: dict[str, np.ndarray]) -> None:
    lengths = arrays["lengths"]
    if lengths.ndim != 1 or lengths.dtype.kind != "i" or (lengths < 0).any():
        raise BadPool(f"{path} is damaged: lengths is {lengths.dtype} of shape {lengths.shape}; it must be whole "
                      "numbers from 0 on, one an example")
    for name in (*(field.name for field in fields(Scene)), *OF_EXAMPLES):
        if name not in arrays:
            raise BadPool(f"{path} lacks {name}: it is damaged or of another version; make the pool again")
        needed = int(lengths.sum()) if name in OF_POINTS else len(lengths)
        if arrays[name].ndim == 0 or len(arrays[name]) != needed:
            raise BadPool(f"{path} is damaged: {name} has shape {arrays[name].shape}; it must have {needed} rows")


_makers: dict[PoolIdentity, Maker] = {}


def _write(part: Part) -> tuple[int, int]:
    identity = part.identity
    whole = replace(identity, first=0, count=0)
    if whole not in _makers:
        _makers[whole] = part.maker(load_shape_model(PACKAGED_REAL)[0], whole)
    examples, failed = [], 0
    for number in range(identity.first, identity.first + identity.count):
        try:
            examples.append(_makers[whole].example(number))
        except UsxError:
            failed += 1
        except Exception as error:  # in a worker, where nobody would see which spine it was
            raise BadPool(f"example {number}, of {part.path}, ended in {error!r}") from error
    arrays = {**_stacked(examples), NAME: identity.array()}
    partial = part.path.with_suffix(".part.npz")
    np.savez(partial, allow_pickle=False, **arrays)
    partial.replace(part.path)
    return len(examples), failed


def _stacked(examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """Arrays of all examples; without one, arrays without a row."""
    arrays = {"lengths": np.array([len(example.scene.points) for example in examples], np.int64)}
    for field in fields(Scene):
        parts = [getattr(example.scene, field.name) for example in examples]
        arrays[field.name] = _joined(parts, field.name in OF_POINTS)
    for name in OF_EXAMPLES:
        arrays[name] = _joined([getattr(example, name) for example in examples], False)
    return arrays


def _joined(parts: list[np.ndarray], of_points: bool) -> np.ndarray:
    if not parts:
        return np.zeros(0)
    return np.concatenate(parts) if of_points else np.stack(parts)
