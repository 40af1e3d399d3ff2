"""Measures simulated ultrasound frames and real ones the same way and tells whether the simulation lies in the range.

Real frames: three recordings of the PLUS toolkit's test data (Lasso et al., "PLUS: open-source toolkit for ultrasound-
guided intervention systems", IEEE Trans. Biomed. Eng. 61, 2014): a bone in vivo and a spine phantom with linear probes,
and water-tank frames of a curvilinear probe whose compression is known exactly.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from usx_common.errors import UsxError
from usx_phantom import real_frames
from usx_phantom.checks import check_range, check_whole
from usx_phantom.frame_measures import Measures, measure_frames
from usx_phantom.image_statistics import (
    RAYLEIGH_SNR,
    rayleigh_distance,
    speckle_snr,
    undo_fourth_root,
)
from usx_phantom.phantom_scene import build_scene
from usx_phantom.report_pictures import draw_comparison
from usx_phantom.simulated_frames import homogeneous_envelopes, simulated_frames
from usx_phantom.spine import sample_spine

DESCRIPTION = """Measure speckle, bone line and shadow in simulated and in real ultrasound frames, the same way in both,
and write table.md, measures.csv and comparison.png. Not for medical use."""
EXAMPLES = """examples:
  ultrasound_report --out out/ultrasound                    real frames of $USX_DATA/sweeps
  ultrasound_report --data /data/sweeps --out out --frames 40
"""
QUANTILES = (5.0, 50.0, 95.0)
SNR_MARGIN = 0.1  # of the 1.913 of fully developed speckle


@dataclass(frozen=True)
class Row:
    """One measure: 5 %, median and 95 % over all real lines and over all simulated ones, and the limits that the
    simulated median is held against: those of theory for speckle, the real 5 to 95 % for all else."""

    measure: str
    real: tuple[float, float, float]
    simulated: tuple[float, float, float]
    limits: tuple[float, float]

    @property
    def within(self) -> bool:
        """The simulated median lies in the limits."""
        return self.limits[0] <= self.simulated[1] <= self.limits[1]


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser("ultrasound_report", description=DESCRIPTION, epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write the report to")
    p.add_argument("--data", type=Path, metavar="DIR", help="folder of the recordings (default $USX_DATA/sweeps)")
    p.add_argument("--frames", type=int, default=21, help="simulated frames along the default sweep (default 21)")
    p.add_argument("--seed", type=int, default=0, help="chooses the person and the noise (default 0)")
    return p


def bone_rows(real: list[Measures], simulated: Measures) -> list[Row]:
    """Rows of the measures that both sides have, pooled over the real sets."""
    rows = []
    for name, values in simulated.values.items():
        theirs = np.concatenate([measures.values[name] for measures in real])
        if len(theirs) and len(values):
            range_of_real = _quantiles(theirs)
            rows.append(Row(name, range_of_real, _quantiles(values), (range_of_real[0], range_of_real[2])))
    return rows


def speckle_rows(patches: list[np.ndarray], envelopes: list[np.ndarray]) -> list[Row]:
    """Speckle before compression: real patches with their exactly known compression undone, simulated envelopes."""
    real = [undo_fourth_root(patch) for patch in patches]
    # Row by row: a whole patch changes its mean with depth, and that is no speckle.
    ours = [envelope.T[::20] for envelope in envelopes]
    distance = _quantiles([_distance(patch) for patch in real])
    return [Row("speckle SNR before compression", _quantiles([_snr(p) for p in real]),
                _quantiles([_snr(p) for p in ours]), (RAYLEIGH_SNR - SNR_MARGIN, RAYLEIGH_SNR + SNR_MARGIN)),
            Row("speckle, K-S distance to Rayleigh", distance, _quantiles([_distance(p) for p in ours]),
                (0.0, distance[2]))]


def _snr(envelope: np.ndarray) -> float:
    return speckle_snr(_level(envelope))


def _distance(envelope: np.ndarray) -> float:
    return rayleigh_distance(_level(envelope))


def _level(envelope: np.ndarray) -> np.ndarray:
    """Envelope with the mean of every row (one depth, or one line) brought to one."""
    return envelope / np.maximum(envelope.mean(axis=1, keepdims=True), 1e-12)


def _quantiles(values: object) -> tuple[float, float, float]:
    low, middle, high = np.percentile(np.asarray(values, dtype=float), QUANTILES)
    return float(low), float(middle), float(high)


def markdown(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    head = ["| measure | real 5 % | real median | real 95 % | simulated 5 % | simulated median | simulated 95 % "
            "| in range |",
            "|---|---|---|---|---|---|---|---|"]
    body = ["| " + " | ".join([row.measure, *(f"{v:.2f}" for v in (*row.real, *row.simulated)),
                               "yes" if row.within else "no"]) + " |" for row in rows]
    return "\n".join([*head, *body]) + "\n"


def by_recording(names: list[str], measured: list[Measures]) -> str:
    """Markdown table of the median of every measure in each set of frames."""
    head = [f"| median | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    body = [f"| {measure} | " + " | ".join(_median(m.values[measure]) for m in measured) + " |"
            for measure in measured[0].values]
    return "\n".join([*head, *body]) + "\n"


def scan_conversion(folder: Path) -> str:
    """A line on how well the curvilinear frames are converted."""
    values = real_frames.scan_conversion_correlations(folder)
    return (f"scan conversion of {len(values)} curvilinear frames: correlation with the device's own pictures "
            f"{min(values):.4f} to {max(values):.4f}\n")


def _median(values: np.ndarray) -> str:
    return f"{np.median(values):.2f}" if len(values) else "none"


def write(rows: list[Row], recordings: str, folder: Path) -> None:
    """Write table.md (with the table of `recordings`) and measures.csv into an existing folder."""
    (folder / "table.md").write_text(markdown(rows) + "\n" + recordings, encoding="utf-8")
    with (folder / "measures.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["measure", "real_5", "real_median", "real_95", "simulated_5", "simulated_median",
                      "simulated_95", "within"])
        for row in rows:
            out.writerow([row.measure, *(f"{v:.4f}" for v in (*row.real, *row.simulated)), int(row.within)])


def show(rows: list[Row], console: Console) -> None:
    """Print the rows; at most 100 columns wide."""
    table = Table("measure", "real", "simulated", "in range", title_justify="left",
                  title="simulated ultrasound against real frames: median (5 % to 95 %)")
    for row in rows:
        real, ours = (f"{v[1]:.4g} ({v[0]:.3g} to {v[2]:.3g})" for v in (row.real, row.simulated))
        table.add_row(row.measure, real, ours, "yes" if row.within else "[bold red]no")
    console.print(table)
    console.print(f"fully developed speckle has an SNR of {RAYLEIGH_SNR:.3f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 written, 2 bad input (one line on stderr)."""
    options = parser().parse_args(arguments)
    console = Console(width=min(Console().width, 100))
    try:
        check_range("--frames", options.frames, 1, 500)
        seed = check_whole("--seed", options.seed)
        folder = _data_folder(options.data)
        sets, patches = real_frames.read_frames(folder), real_frames.read_quiet_patches(folder)
        with console.status("simulating and measuring"):
            ours = simulated_frames(build_scene(sample_spine(seed).meshes, seed), options.frames, seed)
            real, simulated = [measure_frames(frames) for frames in sets], measure_frames(ours)
            rows = speckle_rows(patches, homogeneous_envelopes(4, seed)) + bone_rows(real, simulated)
            options.out.mkdir(parents=True, exist_ok=True)
            all_sets, all_measures = [*sets, ours], [*real, simulated]
            conversion = scan_conversion(folder)
            recordings = by_recording([frames.name for frames in all_sets], all_measures)
            write(rows, recordings + "\n" + conversion, options.out)
            draw_comparison(all_sets, all_measures, options.out / "comparison.png")
    except (UsxError, OSError) as error:
        print(f"ultrasound_report: {error}", file=sys.stderr)
        return 2
    show(rows, console)
    console.print(conversion, end="")
    console.print(f"written to {options.out}")
    return 0


def _data_folder(folder: Path | None) -> Path:
    if folder is None and not os.environ.get("USX_DATA"):
        raise UsxError("no real frames to compare with: give --data DIR or set USX_DATA to the folder above sweeps")
    return folder if folder is not None else Path(os.environ["USX_DATA"]) / "sweeps"


if __name__ == "__main__":
    sys.exit(main())
