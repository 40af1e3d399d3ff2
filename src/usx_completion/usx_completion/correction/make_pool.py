"""Command line: make the pool of examples that the correction network is trained on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from usx_common.errors import UsxError
from usx_completion.correction.pool import planned_parts, write_pool
from usx_completion.data.spine_source import FIRST_TEST_SEED, KEPT

DESCRIPTION = """Make training examples of the project's own network: spines of the shape model of real people, examined
by the presets paper and realistic in turn, with the poses where the prior starts. In --out: train/ and val/, files of a
hundred spines. The same options and seed give the same files, whatever --jobs. A stopped run goes on where it was;
a folder that was made with other options is refused."""
EXAMPLES = """examples:
  make_pool --out out/pool --spines 4000                 23 MB a hundred spines
  train --config usx --data out/pool --out out/usx       what it is for
"""
VALIDATION_SEED_STEP = 1  # other people than those trained on


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser("make_pool", description=DESCRIPTION, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of train/ and val/")
    p.add_argument("--spines", type=int, default=4000, help="spines to train on (4000)")
    p.add_argument("--validation", type=int, default=60, help="spines to validate on, of another seed (60)")
    p.add_argument("--seed", type=int, default=100, help="which people; the next seed is for validation (100)")
    p.add_argument("--jobs", type=int, default=2, help="processes (2)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, or 2 for bad input (one line on stderr)."""
    options = parser().parse_args(arguments)
    try:
        for name, low, high in (("spines", 1, 10**6), ("validation", 1, 10**5), ("seed", 0, 1998),
                                ("jobs", 1, 256)):
            if not low <= getattr(options, name) <= high:
                raise UsxError(f"--{name} {getattr(options, name)} must be within {low} .. {high}")
        if options.seed + VALIDATION_SEED_STEP >= FIRST_TEST_SEED:
            raise UsxError(f"--seed {options.seed} or the next, which is for validation, is of {KEPT}: give one below "
                           f"{FIRST_TEST_SEED - VALIDATION_SEED_STEP}")
        pools = (("val", options.validation, options.seed + VALIDATION_SEED_STEP),
                 ("train", options.spines, options.seed))
        for part, count, seed in pools:
            planned_parts(options.out / part, count, seed)  # refused before anything is made
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                   TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            for part, count, seed in pools:
                task = bar.add_task(part, total=count)
                left_out = 0
                for made, failed in write_pool(options.out / part, count, seed, options.jobs):
                    left_out += failed
                    bar.update(task, advance=made + failed)
                bar.console.print(f"{options.out / part}: {count - left_out} spines, {left_out} left out because too "
                                  "little was seen of them")
    except (UsxError, OSError, BrokenExecutor) as error:
        print(f"make_pool: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
