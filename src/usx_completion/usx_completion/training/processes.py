"""Several processes that train one model: each takes a part of every batch, and gradients are averaged.

Averages are taken here rather than by torch's DistributedDataParallel: published layers that never get a gradient need
no special case, and one process and many run the same code.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from usx_common.errors import UsxError
from usx_common.processes import end_with_parent

# bad input stops all processes with the same line, and one that stops breaks the others' connection to it: they are
# ended while they wait for the first to say why
FIRST_TO_SPEAK_S = 3.0
PATIENCE = timedelta(hours=2)  # others wait while the first process validates


@dataclass(frozen=True)
class Group:
    """This process's ``rank`` among ``world``. With one process every method does nothing."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that validates, writes and prints."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes; parameters without one are passed over."""
        if self.world == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.world
        for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean_of(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Means of scalars over the processes, as numbers."""
        flat = torch.stack([value.detach().float() for value in values.values()])
        if self.world > 1:
            distributed.all_reduce(flat)
            flat /= self.world
        return dict(zip(values, flat.tolist(), strict=True))

    def of_first(self, value: float, device: torch.device) -> float:
        """The first process's number, in all of them."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=device)
        distributed.broadcast(shared, 0)
        return float(shared.item())


def join_group(device: str) -> Group:
    """Join the processes that `torchrun` started, by its environment variables; alone where there are none."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Group()
    group = Group(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if group.world > 1:
        _join(device, group, "env://")
    return group


def leave_group() -> None:
    """Leave the group, where there is one."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def run_processes(work: Callable[[Any, Group], int], task: Any, count: int, device: str) -> int:
    """Run ``work(task, group)`` in ``count`` new processes of this machine; 0, or what the first to fail gave.

    The others are ended then. What a process had to say is on its standard error. Raises UsxError where the device
    cannot be shared, and where a process is ended from outside.
    """
    _check_device(device)
    with tempfile.TemporaryDirectory(prefix="usx_train_") as folder:
        context = torch.multiprocessing.get_context("spawn")
        meeting = (Path(folder) / "meeting").as_uri()
        processes = [context.Process(target=_enter, args=(work, task, Group(rank, count), device, meeting))
                     for rank in range(count)]
        try:
            for process in processes:
                process.start()
            _wait(processes)
            return _status(processes)  # before the others are ended, which is no result of theirs
        finally:
            for process in processes:
                if process.is_alive():
                    process.terminate()
                process.join()


def _wait(processes: list[Any]) -> None:
    """Until all have ended, or one has failed: the others would wait for it for hours."""
    while any(process.is_alive() for process in processes):
        for process in processes:
            process.join(timeout=0.2)
        if any(process.exitcode not in (None, 0) for process in processes):
            return


def _status(processes: list[Any]) -> int:
    """Of processes of which some have ended: the first result of their own that is not 0."""
    codes = [process.exitcode or 0 for process in processes]
    own = [code for code in codes if code > 0]
    if own or not any(codes):
        return own[0] if own else 0
    rank = next(rank for rank, code in enumerate(codes) if code < 0)
    raise UsxError(f"process {rank} of the training was ended by signal {-codes[rank]}; if the machine was short of "
                   "memory, take fewer processes or a smaller batch. --resume goes on from the last checkpoint")


def _enter(work: Callable[[Any, Group], int], task: Any, group: Group, device: str, meeting: str) -> None:
    end_with_parent()
    if sys.platform.startswith("linux"):  # a machine's name need not have an address
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // group.world))
    _join(device, group, meeting)
    try:
        status = work(task, group)
    except Exception:
        if not group.first:
            time.sleep(FIRST_TO_SPEAK_S)
        raise
    finally:
        leave_group()
    sys.exit(status)


def _join(device: str, group: Group, meeting: str) -> None:
    _check_device(device)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    distributed.init_process_group(backend, init_method=meeting, rank=group.rank, world_size=group.world,
                                   timeout=PATIENCE)


def _check_device(device: str) -> None:
    if not distributed.is_available():
        raise UsxError("this build of torch cannot run several processes: train with one")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsxError(f"device '{device}' cannot be used: torch finds no GPU")


def device_of(name: str, group: Group) -> torch.device:
    """The torch device; "cuda" means a GPU for each process of a machine. Raises UsxError where there is none."""
    try:
        if name == "cuda":
            local = int(os.environ.get("LOCAL_RANK", group.rank))
            name = f"cuda:{local % max(torch.cuda.device_count(), 1)}"
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError) as error:
        raise UsxError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}") from error
    return device
