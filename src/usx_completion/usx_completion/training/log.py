"""What a training wrote down about itself: log.csv and loss.png."""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

STEPS_PER_ROW = 10
SECONDS_PER_PICTURE = 30.0


class TrainingLog:
    """Rows of figures by step: means of the loss's terms over ten steps ("train_..."), and validations ("val_...")."""

    def __init__(self, rows: str = "[]") -> None:
        self.rows: list[dict[str, float]] = json.loads(rows)
        self._waiting: list[dict[str, float]] = []
        self._drawn_s = -math.inf

    def text(self) -> str:
        """All rows as text, for a checkpoint; steps that do not fill a row yet make one."""
        self._flush()
        return json.dumps(self.rows)

    def add_step(self, step: int, rate: float, seconds: float, terms: dict[str, float]) -> None:
        """Note the loss of a step that is done; ``seconds`` of training so far."""
        named = {f"train_{name}": value for name, value in terms.items()}
        self._waiting.append({"step": step, "rate": rate, "seconds": seconds, **named})
        if len(self._waiting) == STEPS_PER_ROW:
            self._flush()

    def add_validation(self, step: int, seconds: float, figures: dict[str, float]) -> None:
        """Note a validation."""
        self._flush()
        named = {f"val_{name}": value for name, value in figures.items()}
        self.rows.append({"step": step, "seconds": seconds, **named})

    def write(self, folder: Path, select: str, last: bool = False) -> None:
        """Write log.csv, and loss.png if the last one is old or this is the ``last``; ``select``: the validated figure
        to draw, "": the first there is."""
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        part = folder / f".log.csv.{os.getpid()}.part"
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            for row in self.rows:
                writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value
                                 for key, value in row.items()})
        part.replace(folder / "log.csv")
        if last or time.monotonic() - self._drawn_s > SECONDS_PER_PICTURE:
            self._draw(folder / "loss.png", f"val_{select}" if select else "")
            self._drawn_s = time.monotonic()

    def _flush(self) -> None:
        if not self._waiting:
            return
        sums: dict[str, float] = defaultdict(float)
        for row in self._waiting:
            for key, value in row.items():
                sums[key] += value / len(self._waiting)
        last = self._waiting[-1]
        self.rows.append({**sums, "step": last["step"], "rate": last["rate"], "seconds": last["seconds"]})
        self._waiting = []

    def _draw(self, path: Path, figure: str) -> None:
        figure = figure or next((key for row in self.rows for key in row if key.startswith("val_")), "")
        canvas = Figure(figsize=(7.0, 4.0), layout="constrained")
        axes = canvas.add_subplot()
        trained = [(row["step"], row["train_total"]) for row in self.rows if "train_total" in row]
        axes.plot([step for step, _ in trained], [value for _, value in trained], color="tab:blue", linewidth=1.0)
        axes.set(xlabel="step", ylabel="training loss", yscale="log")
        axes.yaxis.label.set_color("tab:blue")
        validated = [(row["step"], row[figure]) for row in self.rows if figure in row]
        if validated:
            other = axes.twinx()
            other.plot(*zip(*validated, strict=True), color="tab:red", marker="o", markersize=3, linewidth=1.0)
            other.set(ylabel=f"validation: {figure.removeprefix('val_')}", yscale="log")
            other.yaxis.label.set_color("tab:red")
            for axis in (axes.yaxis, other.yaxis):
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter("{x:g}")
        canvas.savefig(path, dpi=100)
