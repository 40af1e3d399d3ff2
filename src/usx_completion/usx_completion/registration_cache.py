"""Registered meshes kept on disk: registering is by far the dearest part of building a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_completion.correspondence import Template, register

REVISION = 1  # of `register`: raise it when the same mesh would be registered otherwise


@dataclass(frozen=True)
class RegistrationTask:
    """Bend ``template`` onto ``target`` (both mm, LPS)."""

    template: Mesh
    target: Mesh

    @property
    def key(self) -> str:
        """Digest of everything that the result depends on."""
        digest = hashlib.sha256(f"{REVISION} {Template(self.template).settings}".encode())
        for mesh in (self.template, self.target):
            digest.update(mesh.vertices.tobytes())
            digest.update(mesh.faces.tobytes())
        return digest.hexdigest()[:32]


def register_all(tasks: Sequence[RegistrationTask], cache: Path, jobs: int = 1, text: str = "registering"
                 ) -> list[NDArray[np.float64]]:
    """(V, 3) vertices of each task's template on its target; what ``cache`` already holds is read from there.

    Raises UsxError when the cache cannot be written.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsxError(f"the cache folder {cache} cannot be made: {error}; name another with --cache") from error
    paths = [cache / f"{task.key}.npy" for task in tasks]
    results = [_read(path, len(task.template.vertices)) for path, task in zip(paths, tasks, strict=True)]
    missing = [row for row, result in enumerate(results) if result is None]
    if missing:
        with ThreadPoolExecutor(jobs) as pool:  # the solvers and search trees let go of the interpreter's lock
            found = pool.map(_register, [tasks[row] for row in missing])
            for row, vertices in zip(missing, track(found, description=text, total=len(missing)), strict=True):
                np.save(paths[row], vertices)
                results[row] = vertices
    return [result for result in results if result is not None]


def _register(task: RegistrationTask) -> NDArray[np.float64]:
    return register(Template(task.template), task.target)


def _read(path: Path, vertices: int) -> NDArray[np.float64] | None:
    """What the file holds; None when there is none, or one that a crash cut short."""
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return stored if stored.shape == (vertices, 3) and np.isfinite(stored).all() else None
