"""Command line: train a model of a configuration, on one process or several, to the end or for a time."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from usx_common.errors import UsxError
from usx_completion.training.configuration import build, find_configuration, read_configuration
from usx_completion.training.models import Request, make_learner
from usx_completion.training.processes import (
    FIRST_TO_SPEAK_S,
    Group,
    device_of,
    join_group,
    leave_group,
    run_processes,
)
from usx_completion.training.settings import TrainingSettings
from usx_completion.training.trainer import CHECKPOINT, WEIGHTS, Run, Trainer

DESCRIPTION = """Train a completion network. In --out: checkpoint.pt (state to go on from), log.csv and loss.png, and
model.safetensors (weights with a card). Validation is on the split val; the test split is never read. What the
configurations hold: docs/paper-network.md."""
EXAMPLES = """examples:
  train --config paper --variant ef_lf --data out/train.h5 --out out/ef_lf --device cuda
  train --config paper_small --variant baseline --data out/small.h5 --out out/us --processes 2 --minutes 25
  train --config paper --data theirs_train.h5 --validation theirs_val.h5 --out out/theirs    the authors' files
  train --config paper_small --data out/small.h5 --out out/us --resume                       go on after a stop
  train --config usx --data out/pool out/acquired --out out/usx --processes 2                the project's own network
  torchrun --nproc-per-node 4 -m usx_completion.training.train --config paper --data out/train.h5 --out out/four \\
    --device cuda                                                                            four GPUs
"""
INTERRUPTED = 130  # as shells have it


@dataclass(frozen=True)
class Task:
    """What each process does; it is sent to processes that are started."""

    sections: dict[str, Any]
    options: argparse.Namespace


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser("train", description=DESCRIPTION, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--config", required=True, metavar="NAME|FILE", help="packaged configuration or a YAML file")
    p.add_argument("--variant", default="",
                   help="of the paper's network: baseline, ef, lf, ef_lf (the configuration's)")
    p.add_argument("--data", type=Path, required=True, nargs="+", metavar="PATH",
                   help="data set FILE.h5 of make_dataset, or of the authors' layout; for the project's own network "
                   "folders of make_pool and make_acquired_pool")
    p.add_argument("--validation", type=Path, metavar="FILE.h5",
                   help="file to validate on, where --data names no splits")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    p.add_argument("--device", default="cpu", help="torch device; cuda: one GPU for each process (cpu)")
    p.add_argument("--minutes", type=float, default=0.0,
                   help="time to take, start excluded: the schedule is stretched over it (as many steps as configured)")
    p.add_argument("--processes", type=int, default=1, help="processes on this machine that share each batch (1)")
    p.add_argument("--threads", type=int, default=0, help="threads of each process (cores / processes)")
    p.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    p.add_argument("--overwrite", action="store_true", help="replace an earlier training in --out")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def checked(options: argparse.Namespace) -> Task:
    """The task of parsed options. Raises UsxError naming the option or the setting that makes no sense."""
    for name, low, high in (("minutes", 0.0, 1e5), ("processes", 1, 256), ("threads", 0, 1024)):
        if not low <= getattr(options, name) <= high:
            raise UsxError(f"--{name} {getattr(options, name)} must be within {low:g} .. {high:g}")
    sections = read_configuration(find_configuration(options.config))
    build(TrainingSettings, sections.get("training"), "training").part_size(options.processes)
    for path in (*options.data, options.validation):
        if path is not None and not path.exists():
            raise UsxError(f"data set {path} does not exist; make one with make_dataset, or a folder with make_pool or "
                           "make_acquired_pool")
    there = [name for name in (CHECKPOINT, WEIGHTS) if (options.out / name).exists()]
    if there and not (options.resume or options.overwrite):
        raise UsxError(f"{options.out / there[0]} exists: give --resume to go on, --overwrite, or another --out")
    return Task(sections, options)


def work(task: Task, group: Group) -> int:
    """Train as process ``group.rank``; the exit status: 0 done, 2 bad input (one line on stderr), 130 stopped."""
    options = task.options
    try:
        if options.threads:
            torch.set_num_threads(options.threads)
        settings = build(TrainingSettings, task.sections.get("training"), "training")
        device = device_of(options.device, group)
        say = print if group.first else None
        settings.part_size(group.world)
        size = settings.batch // settings.accumulate
        learner = make_learner(Request(task.sections, tuple(options.data), options.validation, options.variant, size,
                                       settings.seed, device, say))
        run = Run(options.out, device, options.minutes, options.resume, options.quiet)
        trainer = Trainer(learner, settings, run, group)
        trainer.train()
    except (UsxError, OSError) as error:
        if not group.first:
            time.sleep(FIRST_TO_SPEAK_S)
        print(f"train: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train: stopped; --resume goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    if group.first:
        print(f"{options.out / WEIGHTS}: {trainer.summary()}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 trained, 2 bad input (one line on stderr), 130 stopped."""
    options = parser().parse_args(arguments)
    try:
        task = checked(options)
        if options.processes > 1:
            return run_processes(work, task, options.processes, options.device)
        group = join_group(options.device)
    except (UsxError, OSError) as error:
        print(f"train: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if group.world > 1 and not options.threads:
        options.threads = max(1, (os.cpu_count() or 1) // group.world)
    try:
        return work(task, group)
    finally:
        leave_group()


if __name__ == "__main__":
    sys.exit(main())
