"""Command line: make the pool of examples that the correction network is trained on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from usx_common.errors import UsxError
from usx_completion.correction.pool import Recipe, planned_parts, preset_recipe, write_pool
from usx_completion.data.spine_source import FIRST_TEST_SEED, KEPT

DESCRIPTION = """Make training examples of the project's own network: spines of the shape model of real people, examined
by the presets paper and realistic in turn, with the poses where the prior starts. In --out: train/ and val/, files of a
hundred spines. The same options and seed give the same files, whatever --jobs. A stopped run goes on where it was;
a folder that was made with other options is refused."""
EXAMPLES = """examples:
  make_pool --out out/pool --spines 4000                 23 MB a hundred spines
                                                       what it is for, with make_acquired_pool of usx_bringup:
  train --config usx --data out/pool out/acquired --out out/usx --processes 2 --threads 1
"""
VALIDATION_SEED_STEP = 1  # other people than those trained on


@dataclass(frozen=True)
class Counts:
    """Usual numbers of spines: to train on, and to validate on; ``seed`` of the people to train on, and the ``least``
    that may be given."""

    spines: int = 4000
    validation: int = 60
    seed: int = 100
    least: int = 0


def _with_options(p: argparse.ArgumentParser, usual: Counts) -> argparse.ArgumentParser:
    """``p`` with the options that all makers of pools have."""
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of train/ and val/")
    p.add_argument("--spines", type=int, default=usual.spines, help=f"spines to train on ({usual.spines})")
    p.add_argument("--validation", type=int, default=usual.validation,
                   help=f"spines to validate on, of another seed ({usual.validation})")
    p.add_argument("--seed", type=int, default=usual.seed,
                   help=f"which people; the next seed is for validation ({usual.seed})")
    p.add_argument("--jobs", type=int, default=2, help="processes (2)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, or 2 for bad input (one line on stderr)."""
    parser = argparse.ArgumentParser("make_pool", description=DESCRIPTION, epilog=EXAMPLES,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    return make(parser, Counts(), arguments, preset_recipe)


def make(parser: argparse.ArgumentParser, usual: Counts, arguments: Sequence[str] | None,
         open_recipe: Callable[[], Recipe]) -> int:
    """Make a pool as the arguments say; returns the exit status of `main`."""
    options = _with_options(parser, usual).parse_args(arguments)
    try:
        for name, low, high in (("spines", 1, 10**6), ("validation", 1, 10**5), ("seed", usual.least, 1998),
                                ("jobs", 1, 256)):
            if not low <= getattr(options, name) <= high:
                raise UsxError(f"--{name} {getattr(options, name)} must be within {low} .. {high}")
        if options.seed + VALIDATION_SEED_STEP >= FIRST_TEST_SEED:
            raise UsxError(f"--seed {options.seed} or the next, which is for validation, is of {KEPT}: give one below "
                           f"{FIRST_TEST_SEED - VALIDATION_SEED_STEP}")
        pools = (("val", options.validation, options.seed + VALIDATION_SEED_STEP),
                 ("train", options.spines, options.seed))
        recipe = open_recipe()
        for part, count, seed in pools:
            planned_parts(options.out / part, count, seed, recipe)  # refused before anything is made
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                   TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            for part, count, seed in pools:
                task = bar.add_task(part, total=count)
                left_out = 0
                for made, failed in write_pool(options.out / part, count, seed, options.jobs, recipe):
                    left_out += failed
                    bar.update(task, advance=made + failed)
                if left_out == count:
                    raise UsxError(f"{options.out / part}: each of the {count} spines was left out")
                bar.console.print(f"{options.out / part}: {count - left_out} spines, {left_out} left out because too "
                                  "little was seen of them, or the chain refused them")
    except (UsxError, OSError, BrokenExecutor) as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
