"""Command line: the authors' checkpoint as weights of this package, off-line.

Their files hold ``net_state_dict``, names with the prefix ``module.`` of torch's DataParallel, and are read without
running any code in them. The names of their layers are not known to us, so layers are told by order and shape: see
`usx_completion.paper.checkpoint_layout`.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from usx_common.errors import UsxError
from usx_completion.paper.checkpoint_layout import matched, proposed_table, read_table
from usx_completion.paper.clouds import CloudSettings
from usx_completion.paper.completion import FORMAT
from usx_completion.paper.learner import variant_of
from usx_completion.paper.network import PaperNetwork
from usx_completion.paper.settings import VARIANTS, PaperNetworkSettings
from usx_completion.training.configuration import as_text
from usx_completion.training.weights import fill, save_weights

DESCRIPTION = """Convert a checkpoint of the authors (a .pth with net_state_dict) into weights for this package. Layers
are matched by order and shape; where that is not unique or does not fit, nothing is written, and what does not fit is
listed. A table of names (--table, lines "their.name our.name") decides then; --propose writes one to begin with."""
EXAMPLES = """examples:
  convert_checkpoint --checkpoint best_cd_t_network.pth --variant ef_lf --out out/theirs.safetensors
  convert_checkpoint --checkpoint best_cd_t_network.pth --variant ef_lf --propose names.txt
  convert_checkpoint --checkpoint best_cd_t_network.pth --variant ef_lf --table names.txt --out out/theirs.safetensors
"""
PREFIX = "module."
KEY = "net_state_dict"


def read_state(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of a checkpoint, in its order, without the prefix; nothing in the file is run.

    Raises UsxError where the file is missing, damaged, holds more than tensors and plain values, or no net_state_dict.
    """
    if not path.is_file():
        raise UsxError(f"checkpoint {path} does not exist")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UsxError(f"{path} cannot be read as a checkpoint of tensors: {reason}") from error
    state = content.get(KEY) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()) or not state:
        raise UsxError(f"{path} holds no {KEY} of tensors")
    return {name.removeprefix(PREFIX): value for name, value in state.items()}


def convert(state: dict[str, Tensor], settings: PaperNetworkSettings, table: dict[str, str] | None
            ) -> dict[str, Tensor]:
    """Tensors by our names of a state by theirs. Raises UsxError with the list of what does not fit."""
    network = PaperNetwork(settings)
    tensors = matched(state, network, table)
    fill(network, tensors, Path("the checkpoint"))
    return tensors


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser("convert_checkpoint", description=DESCRIPTION, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--checkpoint", type=Path, required=True, metavar="FILE.pth", help="checkpoint of the authors")
    p.add_argument("--variant", choices=sorted(VARIANTS), default="ef_lf", help="which fusions it has (ef_lf)")
    p.add_argument("--out", type=Path, metavar="FILE.safetensors", help="weights to write")
    p.add_argument("--table", type=Path, metavar="FILE", help='lines of "their.name our.name"')
    p.add_argument("--propose", type=Path, metavar="FILE", help="write a table as far as order and shape tell")
    p.add_argument("--overwrite", action="store_true", help="replace --out or --propose when it exists")
    return p


def run(options: argparse.Namespace, settings: PaperNetworkSettings) -> None:
    """Do what parsed options ask. Raises UsxError for bad input, OSError where a file cannot be written."""
    if (options.out is None) == (options.propose is None):
        raise UsxError("give one of --out and --propose")
    target = options.out or options.propose
    if target.exists() and not options.overwrite:
        raise UsxError(f"{target} exists: give --overwrite or another name")
    settings = variant_of(settings, options.variant)
    state = read_state(options.checkpoint)
    target.parent.mkdir(parents=True, exist_ok=True)
    if options.propose is not None:
        target.write_text(proposed_table(state, PaperNetwork(settings)), encoding="utf-8")
        print(f"{target}: {len(state)} names; check it and give it as --table")
        return
    table = None if options.table is None else read_table(options.table)
    tensors = convert(state, settings, table)
    clouds = CloudSettings()
    save_weights(target, tensors, {"format": FORMAT, "variant": settings.variant, "network": as_text(settings),
                                   "clouds": as_text(clouds), "data": "trained by the authors of US-X Complete"})
    print(f"{target}: {len(tensors)} tensors of {options.checkpoint.name}")


def main(arguments: Sequence[str] | None = None, settings: PaperNetworkSettings | None = None) -> int:
    """Entry point; returns the exit status: 0 converted, 2 bad input (one line on stderr)."""
    options = parser().parse_args(arguments)
    try:
        run(options, settings or PaperNetworkSettings())
    except (UsxError, OSError) as error:
        print(f"convert_checkpoint: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
