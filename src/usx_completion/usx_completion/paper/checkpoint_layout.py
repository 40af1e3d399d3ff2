"""Which tensor of a foreign checkpoint is which of ours.

Tensors of one kind (weight or bias) and one shape, singleton axes of convolutions left out, are matched in the order
in which they stand. Our order, which a checkpoint must keep within every shape:

1. ultrasound encoder, X-ray encoder (four layers each), feature selector;
2. posterior 1 and 2, prior, generator: inner, outer, shortcut layer of each;
3. coarse head;
4. refinement, finest level first: first layer, attention (centre, around, value, relation, weights, output), gate,
   second layer, shortcut; then bottleneck and decoder from the coarsest level up, last layer;
5. head of the points; unused: score, folding, head.

Where the foreign order is another one, a table of names decides. Joined inputs are taken as [point, whole cloud] in
the encoders and the decoder's bottom, [ultrasound, X-ray] in the feature selector, [coarser, finer] on the way up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from usx_common.errors import UsxError
from usx_completion.paper.network import PaperNetwork

LISTED = 12
Kind = tuple[int, ...]


def matched(state: Mapping[str, Tensor], network: PaperNetwork, table: Mapping[str, str] | None) -> dict[str, Tensor]:
    """Our name -> tensor in our shape. Raises UsxError with the list of what is too many, missing or unfit."""
    ours = network.state_dict()
    pairs = _by_order(state, ours) if table is None else dict(table)
    problems = [f"{name} is not in the checkpoint" for name in pairs if name not in state]
    problems += [f"{name} {tuple(state[name].shape)} of the checkpoint has no place here"
                 for name in state if name not in pairs]
    taken = list(pairs.values())
    problems += [f"{name} {tuple(ours[name].shape)} is not given" for name in ours if name not in taken]
    problems += [f"{name} is given twice" for name in sorted({name for name in taken if taken.count(name) > 1})]
    problems += [f"{name} is no name of ours" for name in taken if name not in ours]
    problems += [f"{theirs} {tuple(state[theirs].shape)} does not fit {mine} {tuple(ours[mine].shape)}"
                 for theirs, mine in pairs.items()
                 if theirs in state and mine in ours and _kind(state[theirs]) != _kind(ours[mine])]
    if problems:
        more = f"; and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise UsxError(f"the checkpoint does not fit this network: {'; '.join(problems[:LISTED])}{more}")
    return {mine: state[theirs].reshape(ours[mine].shape).float() for theirs, mine in pairs.items()}


def proposed_table(state: Mapping[str, Tensor], network: PaperNetwork) -> str:
    """Lines "their.name our.name" by order and shape; "?" where nothing is left to match, "# by order" where the shape
    alone does not tell."""
    ours = network.state_dict()
    pairs = _by_order(state, ours)
    counts: dict[Kind, int] = defaultdict(int)
    for tensor in ours.values():
        counts[_kind(tensor)] += 1
    lines = []
    for name, tensor in state.items():
        told = "" if counts[_kind(tensor)] == 1 else "   # by order"
        lines.append(f"{name} {pairs.get(name, '?')}{told}")
    missing = [name for name in ours if name not in pairs.values()]
    return "\n".join([*lines, *(f"? {name}" for name in missing)]) + "\n"


def read_table(path: Path) -> dict[str, str]:
    """Their name -> our name of lines "their.name our.name"; what follows # is a remark. Raises UsxError for others."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsxError(f"table {path} cannot be read: {error}") from error
    table = {}
    for number, line in enumerate(lines, start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or "?" in words or words[0] in table:
            raise UsxError(f"table {path}, line {number}: {line.strip()!r} must be one new name of theirs "
                           "and one of ours")
        table[words[0]] = words[1]
    return table


def _by_order(state: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, str]:
    waiting = _by_kind(ours.items())
    pairs: dict[str, str] = {}
    for kind, names in _by_kind(state.items()).items():
        pairs |= dict(zip(names, waiting.get(kind, []), strict=False))
    return {name: pairs[name] for name in state if name in pairs}


def _by_kind(tensors: Iterable[tuple[str, Tensor]]) -> dict[Kind, list[str]]:
    kinds: dict[Kind, list[str]] = defaultdict(list)
    for name, tensor in tensors:
        kinds[_kind(tensor)].append(name)
    return kinds


def _kind(tensor: Tensor) -> Kind:
    """Shape without the singleton axes that a convolution's weight (out, in, 1, 1) has behind a matrix's."""
    shape = tuple(tensor.shape)
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
