"""Command line: what the presets show of bone, as the markdown table of docs/training-data.md, and its pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from rich.console import Console

from usx_common.errors import UsxError
from usx_completion.data.crop import RULES
from usx_completion.data.examination import LevelSample, examine, level_samples
from usx_completion.data.pictures import draw_inputs, draw_spines
from usx_completion.data.presets import PRESETS, SampleSettings, preset_named
from usx_completion.data.spine_sample import centred
from usx_completion.data.spine_source import SourceChoice, mean_chain_of, open_source
from usx_completion.data.visibility_figures import visibility_figures

EXAMPLES = """examples:
  dataset_report --spines 20                                         table of the shape model's spines
  dataset_report --spines 4 --source $USX_DATA/shapes                table of real people
  dataset_report --spines 20 --pictures docs/images                  table, and the pictures of spine 0
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser("dataset_report", description=__doc__, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--spines", type=int, default=20, help="number of spines (20)")
    p.add_argument("--seed", type=int, default=0, help="0 to 1999 (0)")
    p.add_argument("--source", default="real", metavar="SOURCE", help="as of make_dataset (real)")
    p.add_argument("--axes", choices=("RAS", "LPS"), default="RAS", help="axes of a folder's meshes (RAS)")
    p.add_argument("--pictures", type=Path, metavar="DIR", help="also draw spine 0 into this folder")
    return p


def table(options: argparse.Namespace, console: Console) -> None:
    """Print one row for each preset and crop rule."""
    source = open_source(SourceChoice(options.source, options.seed, axes=options.axes))
    chain = mean_chain_of(source)
    console.print("| preset | crop | samples | arch within 1.5 mm | body | on neighbours | on no bone | over 3 mm off "
                  "| unit, mm |")
    console.print("|---" * 9 + "|")
    for name in PRESETS:
        for rule in RULES if name != "authors" else [PRESETS[name].crop.rule]:
            settings = SampleSettings(preset_named(name, rule))
            samples: list[LevelSample] = []
            for index in range(options.spines):
                spine = centred(source.sample(index))
                samples += level_samples(examine(spine, settings, index), spine, settings, chain, index)
            f = visibility_figures(samples)
            shares = " | ".join(f"{100 * share:.0f} %" for share in
                                (f.arch_seen, f.body_seen, f.foreign, f.clutter, f.far))
            console.print(f"| {name} | {rule} | {f.count} | {shares} | {f.unit_mm:.0f} |", highlight=False)


def pictures(options: argparse.Namespace, console: Console) -> None:
    """Draw spine 0 as each preset sees it, and its L3 as a network gets it."""
    plt.switch_backend("Agg")
    source = open_source(SourceChoice(options.source, options.seed, axes=options.axes))
    chain = mean_chain_of(source)
    spine = centred(source.sample(0))
    spines, inputs = [], []
    for name in ("paper", "realistic"):
        settings = SampleSettings(preset_named(name))
        observed = examine(spine, settings, 0)
        spines.append((name, spine, observed))
        inputs += [(name, spine, sample) for sample in level_samples(observed, spine, settings, chain, 0)
                   if sample.level == "L3"]
    for path, draw in ((options.pictures / "dataset_spines.png", lambda path: draw_spines(path, spines)),
                       (options.pictures / "dataset_inputs.png", lambda path: draw_inputs(path, inputs))):
        draw(path)
        console.print(f"{path}: {path.stat().st_size / 1000:.0f} kB", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 done, 2 bad input (one line on stderr)."""
    options = parser().parse_args(arguments)
    console = Console(width=200)
    try:
        if not 1 <= options.spines <= 10_000:
            raise UsxError(f"--spines {options.spines} must be within 1 .. 10000")
        table(options, console)
        if options.pictures:
            pictures(options, console)
    except (UsxError, OSError) as error:
        print(f"dataset_report: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
