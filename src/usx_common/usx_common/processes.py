"""Processes that share work: one thread each, and gone when the process that started them is gone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


@contextmanager
def one_thread_pool(count: int, initializer: Callable[..., object] | None = None, arguments: tuple[Any, ...] = ()
                    ) -> Iterator[ProcessPoolExecutor]:
    """A pool of ``count`` new processes, each of which first calls ``initializer(*arguments)``.

    One thread each is faster side by side, and sums do not depend on a machine's cores.
    """
    with _environment(ONE_THREAD), ProcessPoolExecutor(count, get_context("spawn"), _begin, (initializer, arguments)
                                                       ) as pool:
        yield pool


def end_with_parent() -> None:
    """From now on, end this process when the one that started it has ended, even where that was killed.

    Without it a pool's processes finish what they are at first, which may be hours of work for nobody.
    """
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end with parent", daemon=True).start()


def _begin(initializer: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    if initializer is not None:
        initializer(*arguments)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
