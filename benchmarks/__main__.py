"""Run every benchmark (`benchmarks/bench_*.py`), print a table, and write out/bench.json.

Each benchmark is a module with `run(device: str) -> list[dict]`, whose rows have `name`, `value` and `unit`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

# OpenBLAS' threads and torch's wait for each other busily; the launch files do the same for the nodes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rich.console import Console
from rich.table import Table

from usx_common.errors import UsxError

try:
    from usx_runtime import hook
except ModuleNotFoundError:  # a machine with ROS 2 needs no embedded runtime
    hook = None

FOLDER = Path(__file__).parent


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {"cpu": model, "cores": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version(),
            "system": platform.system()}


def main() -> int:
    """Entry point of `make bench`."""
    names = sorted(p.stem.removeprefix("bench_") for p in FOLDER.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("only", nargs="*", help=f"benchmarks to run (default all): {', '.join(names)}")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="device of the torch kernels")
    parser.add_argument("--out", type=Path, default=Path("out/bench.json"), help="file of the figures")
    options = parser.parse_args()
    unknown = set(options.only) - set(names)
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if hook is not None:
        hook.install()  # some of them start nodes
    console, rows = Console(), []
    for name in options.only or names:
        console.print(f"== {name}")
        try:
            rows += importlib.import_module(f"benchmarks.bench_{name}").run(device=options.device)
        except UsxError as error:
            console.print(f"[red]{name} gave no figures: {error}")
    table = Table(*("name", "value", "unit"))
    for row in rows:
        table.add_row(row["name"], f"{row['value']:.4g}", row["unit"])
    console.print(table)
    where = machine()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([{**row, "machine": where} for row in rows], indent=1) + "\n")
    console.print(f"{len(rows)} figures in {options.out}, measured on {where['cpu']}, {where['cores']} cores, "
                  f"load {where['load']:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
