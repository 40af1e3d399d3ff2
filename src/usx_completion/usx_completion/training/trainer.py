"""The training loop, the same for every model: what differs is behind `Learner`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from usx_common.errors import UsxError
from usx_completion.training.averaging import RunningAverage
from usx_completion.training.checkpoint import load_checkpoint, save_checkpoint
from usx_completion.training.clock import MEASURED_STEPS, Clock
from usx_completion.training.configuration import as_text
from usx_completion.training.learner import Learner, Step
from usx_completion.training.log import TrainingLog
from usx_completion.training.processes import Group
from usx_completion.training.settings import TrainingSettings, learning_rate
from usx_completion.training.weights import save_weights

CHECKPOINT, WEIGHTS = "checkpoint.pt", "model.safetensors"
TOLD_EVERY_S = 60.0  # where there is no terminal to draw a bar in
UNKNOWN = 10**9  # steps of a training for a time, until some are measured: it stands at its very beginning


@dataclass(frozen=True)
class Run:
    """Where and how a training runs: ``folder`` of its files; ``minutes`` that it may take, 0: as many steps as the
    settings say; ``resume`` from the folder's checkpoint."""

    folder: Path
    device: torch.device
    minutes: float = 0.0
    resume: bool = False
    quiet: bool = False


class Trainer:
    """Trains a learner's module; the same result for one process as for several, but for rounding.

    In the folder: checkpoint.pt, log.csv, loss.png and model.safetensors (the best validation by ``settings.select``,
    or the last). Raises UsxError where a loss is not finite.
    """

    def __init__(self, learner: Learner, settings: TrainingSettings, run: Run, group: Group | None = None) -> None:
        self._learner, self._settings, self._run, self._group = learner, settings, run, group or Group()
        self._module = learner.module.to(run.device)
        self._optimiser = _optimiser(self._module, settings)
        self._average = RunningAverage(self._module, settings.average)
        self._log, self._clock = TrainingLog(), Clock(run.minutes)
        self._step, self._best, self._saved_s, self._told_s = 0, float("inf"), 0.0, 0.0
        self._validated, self._to_come = 0, settings.validations  # the step of the last validation; how many are left
        self._spread = settings.validations  # how many of these there is time for
        self._total = UNKNOWN if self._clock.limited else settings.total_steps(learner.samples)
        settings.part_size(self._group.world)  # refuses what cannot be shared
        if run.resume:
            self._load(load_checkpoint(run.folder / CHECKPOINT, self._identity))

    @property
    def _identity(self) -> str:
        return as_text(self._settings) + json.dumps(self._learner.card, sort_keys=True)

    def train(self) -> None:
        """Train to the end; returns when model.safetensors is written."""
        self._run.folder.mkdir(parents=True, exist_ok=True)
        batches = self._learner.batches(self._step * self._settings.accumulate, self._group.rank, self._group.world)
        with self._progress() as bar:
            task = bar.add_task("training", total=self._total, completed=self._step, figures="")
            if self._clock.limited and self._step == 0:
                self._validate(last=False)  # untrained: to learn how long it takes
            while self._step < self._total:
                terms = self._advance(batches)
                last = self._step >= self._total
                if last or self._step >= self._next_validation():
                    self._validated, self._to_come = self._step, max(self._to_come - 1, 1)
                    self._spread = self._to_come
                    self._validate(last)
                    self._plan()
                elif self._step == MEASURED_STEPS:
                    self._plan()
                elif self._group.first and (self._clock.spent_s - self._saved_s
                                            > 60.0 * self._settings.checkpoint_minutes):
                    self._save()
                bar.update(task, completed=self._step, total=self._total, figures=f"loss {terms['total']:.4g}")
                self._tell(bar, terms["total"])
        if self._group.first:
            self._log.write(self._run.folder, self._settings.select, last=True)

    def _tell(self, bar: Progress, loss: float) -> None:
        """A line now and then where no bar can be drawn: in a log, or under a scheduler."""
        spent = self._clock.spent_s
        if bar.disable or bar.console.is_terminal or not (
                self._step == MEASURED_STEPS or spent - self._told_s > TOLD_EVERY_S):
            return
        self._told_s = spent
        left = self._clock.left_s(self._total - self._step) / 60.0
        of = "" if self._total == UNKNOWN else f" of {self._total}, about {left:.0f} min left"
        bar.console.print(f"step {self._step}{of}, loss {loss:.4g}")

    def summary(self) -> str:
        """One line on the training that is done."""
        figures = [row for row in self._log.rows if any(key.startswith("val_") for key in row)]
        last = ", ".join(f"{key.removeprefix('val_')} {value:.4g}" for key, value in figures[-1].items()
                         if key.startswith("val_"))
        best = f"; best {self._settings.select} {self._best:.4g}" if self._settings.select else ""
        return f"{self._step} steps, {self._clock.spent_s / 60.0:.1f} minutes; last validation: {last}{best}"

    def _advance(self, batches: Iterator[Any]) -> dict[str, float]:
        settings, step = self._settings, Step(self._step, self._total)
        rate = learning_rate(step.number, step.total, settings.optimiser.rate, settings.schedule)
        for part in self._optimiser.param_groups:
            part["lr"] = rate
        # whatever a module draws from torch's own generator is then the same after a resumption
        torch.manual_seed((settings.seed * 1_000_003 + step.number) * 1_009 + self._group.rank)
        self._module.train()
        with self._clock.step():
            self._optimiser.zero_grad(set_to_none=True)
            sums: dict[str, torch.Tensor] = {}
            for _ in range(settings.accumulate):
                with torch.autocast(self._run.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                    parts = self._learner.loss(next(batches), step)
                (parts["total"] / settings.accumulate).backward()
                for name, value in parts.items():
                    sums[name] = sums.get(name, 0.0) + value.detach() / settings.accumulate
            self._group.average_gradients(self._module.parameters())
            terms = self._group.mean_of(sums)
            if not all(abs(value) < float("inf") for value in terms.values()):
                raise UsxError(f"the loss is not finite at step {step.number}: {terms}; lower the learning rate, or "
                               "set clip")
            if settings.clip > 0.0:
                nn.utils.clip_grad_norm_(self._module.parameters(), settings.clip)
            self._optimiser.step()
            self._average.update(step.number)
        self._step += 1
        self._log.add_step(self._step, rate, self._clock.spent_s, terms)
        return terms

    def _next_validation(self) -> int:
        """The step after which a validation is due: those left are spread evenly over the steps left."""
        return self._validated + math.ceil((self._total - self._validated) / self._spread)

    def _validate(self, last: bool) -> None:
        """Validate on the first process, keep the weights if they are the best, and save the state."""
        if not self._group.first:
            return
        with self._clock.validation():
            with self._average.in_place() as module:
                module.eval()
                with torch.no_grad():
                    figures = self._learner.validate()
                self._log.add_validation(self._step, self._clock.spent_s, figures)
                if self._is_best(figures, last):
                    self._export(module, figures)
            self._save()

    def _is_best(self, figures: dict[str, float], last: bool) -> bool:
        select = self._settings.select
        if not select:
            return last
        if select not in figures:
            raise UsxError(f"select = {select!r} is no figure of this model; there are {', '.join(figures)}")
        better = figures[select] < self._best
        self._best = min(self._best, figures[select])
        return better

    def _plan(self) -> None:
        """Fit the number of steps to the time left, the same in all processes."""
        if not self._clock.limited or self._step >= self._total:
            return
        device = self._run.device
        self._spread = int(self._group.of_first(self._clock.affordable(self._to_come), device))
        total = self._clock.total(self._step, self._spread)
        self._total = int(self._group.of_first(max(total, self._step + 1), device))

    def _export(self, module: nn.Module, figures: dict[str, float]) -> None:
        card = {**self._learner.card, "training": as_text(self._settings), "step": str(self._step),
                "steps": str(self._total), "minutes": f"{self._clock.spent_s / 60.0:.1f}",
                "processes": str(self._group.world), "device": self._run.device.type,
                "validation": json.dumps(figures, sort_keys=True)}
        tensors = module.state_dict()
        if self._settings.stored == "float16":
            tensors = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
        save_weights(self._run.folder / WEIGHTS, tensors, card)

    def _save(self) -> None:
        save_checkpoint(self._run.folder / CHECKPOINT, {
            "settings": self._identity, "module": self._module.state_dict(), "optimiser": self._optimiser.state_dict(),
            "average": self._average.tensors, "step": self._step, "total": self._total, "best": self._best,
            "validated": self._validated, "to_come": self._to_come, "spread": self._spread,
            "seconds": self._clock.spent_s,
            "log": self._log.text()})
        self._log.write(self._run.folder, self._settings.select)
        self._saved_s = self._clock.spent_s

    def _load(self, state: dict[str, Any]) -> None:
        self._module.load_state_dict(state["module"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._average.load(state["average"])
        self._step, self._best = state["step"], state["best"]
        if state["total"] < UNKNOWN:
            self._total = state["total"]
        elif not self._clock.limited:  # a training for a time, stopped before its steps were counted, goes on by steps
            self._total = max(self._total, self._step + 1)
        self._validated, self._to_come = state["validated"], state["to_come"]
        self._spread = state["spread"]
        self._log, self._clock = TrainingLog(state["log"]), Clock(self._run.minutes, state["seconds"])
        self._saved_s = self._told_s = self._clock.spent_s

    def _progress(self) -> Progress:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                   TextColumn("{task.fields[figures]}"), TimeElapsedColumn(), TimeRemainingColumn())
        return Progress(*columns, console=Console(stderr=True), disable=self._run.quiet or not self._group.first)


def _optimiser(module: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    mine = settings.optimiser
    kind = torch.optim.Adam if mine.name == "adam" else torch.optim.AdamW
    return kind(module.parameters(), lr=mine.rate, betas=mine.betas, weight_decay=mine.weight_decay)
