"""The trainer on a model of a few numbers: schedules, resumption, averaging, what it writes and what it refuses."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from usx_common.errors import UsxError
from usx_completion.training.averaging import RunningAverage
from usx_completion.training.checkpoint import load_checkpoint
from usx_completion.training.clock import Clock
from usx_completion.training.configuration import build, find_configuration, read_configuration
from usx_completion.training.models import Request, make_learner
from usx_completion.training.settings import OptimiserSettings, ScheduleSettings, TrainingSettings, learning_rate
from usx_completion.training.trainer import CHECKPOINT, WEIGHTS, Run, Trainer
from usx_completion.training.weights import BadWeights, fill, load_weights

FORMAT = "a line"
SETTINGS = TrainingSettings(steps=12, epochs=0, batch=4, seed=3, average=0.9, clip=1.0, validations=4, select="error",
                            optimiser=OptimiserSettings("adamw", 0.05, weight_decay=0.01),
                            schedule=ScheduleSettings("cosine", warm_up=2))


class Line:
    """Learns y = 2 x + 1, with dropout, from samples that depend on their number alone."""

    def __init__(self, size: int = 4, fails_at: int = -1) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.samples, self.card = 100, {"format": FORMAT}
        self._size, self._fails_at = size, fails_at

    def loss(self, batch, step):
        if step.number == self._fails_at:
            raise KeyboardInterrupt
        x, y = batch
        return {"total": (self.module(x) - y).square().mean(), "share": torch.tensor(step.share)}

    def batches(self, first, rank, world):
        share = self._size // world
        while True:
            start = first * self._size + rank * share
            x = torch.tensor([[math.sin(7.0 * n)] for n in range(start, start + share)])
            yield x, 2 * x + 1
            first += 1

    def validate(self):
        x = torch.linspace(-1, 1, 9)[:, None]
        return {"error": (self.module(x) - 2 * x - 1).abs().mean().item()}


def run(folder, learner=None, settings=SETTINGS, **options):
    learner = learner or Line()
    trainer = Trainer(learner, settings, Run(folder, torch.device("cpu"), quiet=True, **options))
    trainer.train()
    return learner.module.state_dict(), trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)[0]


def test_it_learns_and_writes_what_it_did(whole, tmp_path):
    folder, _ = whole
    rows = list(csv.DictReader((folder / "log.csv").open()))
    errors = {int(row["step"]): float(row["val_error"]) for row in rows if row["val_error"]}
    assert list(errors) == [3, 6, 9, 12]
    trained = [row for row in rows if row["train_total"]]
    assert [int(row["step"]) for row in trained] == [3, 6, 9, 12]  # a validation ends a row
    assert (folder / "loss.png").stat().st_size > 5000
    tensors, card = load_weights(folder / WEIGHTS, FORMAT)
    assert json.loads(card["validation"])["error"] == pytest.approx(min(errors.values()), rel=1e-4)
    assert card["steps"] == "12" and json.loads(card["training"])["seed"] == 3
    fill(Line().module, tensors, folder / WEIGHTS)
    long = replace(SETTINGS, steps=200)
    assert run(tmp_path, settings=long)[1]._best < 0.3 * errors[3]


def test_a_log_is_told_how_far_it_is(tmp_path, capsys):
    Trainer(Line(), replace(SETTINGS, steps=24), Run(tmp_path / "loud", torch.device("cpu"))).train()
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step")]
    assert len(told) == 1 and told[0].startswith("step 12 of 24, about 0 min left, loss ")
    run(tmp_path / "quiet", settings=replace(SETTINGS, steps=24))
    assert not capsys.readouterr().err


def test_a_stopped_training_goes_on_to_the_same_parameters(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Line(fails_at=8))
    resumed, _ = run(tmp_path, resume=True)
    for name, value in whole[1].items():
        assert torch.equal(resumed[name], value)
    kept, lasting = (load_weights(folder / WEIGHTS, FORMAT) for folder in (whole[0], tmp_path))
    assert all(torch.equal(kept[0][name], lasting[0][name]) for name in kept[0])
    log, other = (list(csv.DictReader((folder / "log.csv").open())) for folder in (whole[0], tmp_path))
    assert [row["train_total"] for row in log] == [row["train_total"] for row in other]


def test_parts_one_after_the_other_make_the_same_gradient(tmp_path):
    plain = replace(SETTINGS, steps=5)
    no_dropout = [Line(4), Line(2)]
    for learner in no_dropout:
        learner.module[1].p = 0.0
    one, _ = run(tmp_path / "one", no_dropout[0], plain)
    two, _ = run(tmp_path / "two", no_dropout[1], replace(plain, accumulate=2))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-6, rtol=0)


def test_another_training_is_not_resumed(whole):
    with pytest.raises(UsxError, match="no checkpoint"):
        load_checkpoint(whole[0] / "none.pt", "")
    with pytest.raises(UsxError, match=r"other settings.*seed"):
        run(whole[0], settings=replace(SETTINGS, seed=4), resume=True)


def test_damaged_files_are_refused(whole, tmp_path):
    broken = tmp_path / CHECKPOINT
    broken.write_bytes((whole[0] / CHECKPOINT).read_bytes()[:-200])
    with pytest.raises(UsxError, match="cannot be read as a checkpoint"):
        load_checkpoint(broken, "")
    content = bytearray((whole[0] / WEIGHTS).read_bytes())
    content[-3] ^= 1
    changed = tmp_path / WEIGHTS
    changed.write_bytes(content)
    with pytest.raises(BadWeights, match="corrupt"):
        load_weights(changed, FORMAT)
    with pytest.raises(BadWeights, match="'a line'; 'other' is needed"):
        load_weights(whole[0] / WEIGHTS, "other")
    with pytest.raises(BadWeights, match="lacks weight"):
        fill(nn.Linear(1, 8), load_weights(whole[0] / WEIGHTS, FORMAT)[0], changed)


def test_weights_may_be_stored_in_half_the_bytes(whole, tmp_path):
    run(tmp_path, settings=replace(SETTINGS, stored="float16"))
    half, _ = load_weights(tmp_path / WEIGHTS, FORMAT)
    full, _ = load_weights(whole[0] / WEIGHTS, FORMAT)
    module = Line().module
    fill(module, half, tmp_path / WEIGHTS)
    for name, value in module.state_dict().items():
        assert half[name].dtype == torch.float16 and value.dtype == torch.float32
        torch.testing.assert_close(value, full[name], atol=1e-3, rtol=1e-3)


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path):
    learner = Line()
    learner.loss = lambda batch, step: {"total": learner.module(batch[0]).mean() * torch.nan}
    with pytest.raises(UsxError, match="not finite at step 0"):
        run(tmp_path, learner)


def test_the_time_given_sets_the_number_of_steps(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("usx_completion.training.clock.time.monotonic", lambda: now[0])
    learner = Line()
    plain, validated = learner.loss, learner.validate
    learner.loss = lambda batch, step: (now.__setitem__(0, now[0] + 1.0), plain(batch, step))[1]  # a second each
    learner.validate = lambda: (now.__setitem__(0, now[0] + 10.0), validated())[1]
    _, trainer = run(tmp_path, learner, minutes=5.0)
    assert trainer._step == pytest.approx(300 - 5 * 10, abs=2)  # five validations: untrained and four
    assert now[0] == pytest.approx(300, abs=3)
    clock = Clock(1.0, spent_s=50.0)
    assert clock.spent_s == 50.0


@pytest.mark.parametrize("minutes", [0.0, 5.0])
@pytest.mark.parametrize(("saved_every", "first"), [(1000.0, 0), (0.01, 6)])
def test_a_training_for_a_time_that_was_stopped_at_once_goes_on_by_steps_or_for_a_time(
        whole, tmp_path, monkeypatch, minutes, saved_every, first):
    now = [0.0]
    monkeypatch.setattr("usx_completion.training.clock.time.monotonic", lambda: now[0])

    def learner(fails_at):
        made = Line(fails_at=fails_at)
        plain = made.loss
        made.loss = lambda batch, step: (now.__setitem__(0, now[0] + 1.0), plain(batch, step))[1]  # a second each
        return made

    settings = replace(SETTINGS, checkpoint_minutes=saved_every)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, learner(6), settings, minutes=5.0)
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] == first
    parameters, trainer = run(tmp_path, learner(2000), settings, minutes=minutes, resume=True)
    card = load_weights(tmp_path / WEIGHTS, FORMAT)[1]
    if minutes:
        assert trainer._step == pytest.approx(300, abs=8) and int(card["steps"]) > 250
    else:
        assert trainer._step == 12 and card["steps"] == "12"
        if first == 0:  # no step was taken yet that did not know how many there would be
            assert all(torch.equal(parameters[name], value) for name, value in whole[1].items())


def test_a_stall_does_not_end_a_training_for_a_time(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("usx_completion.training.clock.time.monotonic", lambda: now[0])
    learner, looks = Line(), []
    plain, validated = learner.loss, learner.validate

    def step(batch, step):
        now[0] += 31.0 if step.number == 6 else 1.0
        return plain(batch, step)

    def look():
        now[0] += 5.0 if looks else 60.0  # an untrained model takes its time
        looks.append(now[0])
        return validated()

    learner.loss, learner.validate = step, look
    _, trainer = run(tmp_path, learner, minutes=5.0)
    assert trainer._step == pytest.approx(300 - 60 - 30 - 4 * 5, abs=2)
    assert len(looks) == 5


def test_the_average_follows_its_recurrence():
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(1.0)
    average, expected = RunningAverage(module, 0.3), 1.0
    for step, value in enumerate((2.0, 4.0, 8.0, 8.0, 3.0)):
        with torch.no_grad():
            module.weight.fill_(value)
        average.update(step)
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.in_place() as inside:
        assert inside.weight.item() == pytest.approx(expected, rel=1e-6)
    assert module.weight.item() == 3.0


def test_learning_rates_are_the_published_ones():
    steps = ScheduleSettings()
    rates = [learning_rate(epoch, 100, 1e-4, steps) for epoch in (0, 39, 40, 79, 80, 99)]
    assert rates == pytest.approx([1e-4, 1e-4, 0.7e-4, 0.7e-4, 0.49e-4, 0.49e-4])
    assert learning_rate(99, 100, 1e-4, replace(steps, factor=0.001)) == 1e-6  # the floor
    cosine = ScheduleSettings("cosine", warm_up=3, floor=0.0)
    assert [learning_rate(n, 103, 1.0, cosine) for n in range(3)] == pytest.approx([0.25, 0.5, 0.75])
    assert learning_rate(53, 103, 1.0, cosine) == pytest.approx(0.5)
    assert learning_rate(103, 103, 1.0, cosine) == pytest.approx(0.0)


@pytest.mark.parametrize(("values", "says"), [
    ({"stepss": 5}, "training: 'stepss' is unknown; known are steps, epochs"),
    ({"batch": "four"}, r"training.batch = 'four' must be of type int"),
    ({"batch": 0}, "batch = 0 must be within 1"), ({"epochs": 0}, "give one of them"),
    ({"optimiser": {"name": "sgd"}}, "training.optimiser: OptimiserSettings name = 'sgd' must be one of adam, adamw"),
    ({"optimiser": {"rate": float("nan")}}, "rate = nan"), ({"schedule": {"at": [0.8, 0.4]}}, r"at = \(0.8, 0.4\)"),
    ({"optimiser": {"betas": [0.9]}}, r"betas = \[0.9\] must have 2 entries"), ({"schedule": 3}, "must hold keys"),
    ({"seed": True}, "seed = True must be of type int")])
def test_a_bad_setting_is_named_with_its_value(values, says):
    with pytest.raises(UsxError, match=says):
        build(TrainingSettings, values, "training")


@dataclass(frozen=True)
class Part:
    size: int
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.share > 1.0:
            raise ValueError("share above 1")


@dataclass(frozen=True)
class Parts:
    stages: tuple[Part, ...] = (Part(1),)
    kind: int | None = None


@pytest.mark.parametrize(("values", "says"), [
    ({"stages": 3}, "own.stages = 3 must be a list"), ({"stages": None}, "own.stages = None must be a list"),
    ({"stages": [3]}, r"own.stages\[0\] = 3 must hold keys and values: some of size, share"),
    ({"stages": [{}]}, r"own.stages\[0\] = {} lacks 'size'"),
    ({"stages": [None]}, r"own.stages\[0\] = {} lacks 'size'"),
    ({"stages": [{"share": 0.1}]}, r"own.stages\[0\] = {'share': 0.1} lacks 'size'"),
    ({"stages": [{"size": "4"}]}, r"own.stages\[0\].size = '4' must be of type int"),
    ({"stages": [{"size": 10**400}]}, r"own.stages\[0\].size = 10+\.\.\.0+ must be a number within -1e\+15 .. 1e\+15"),
    ({"stages": [{"size": 1, "share": float("inf")}]}, "share = inf must be a number within"),
    ({"stages": [{"size": 1, "share": 2}]}, r"own.stages\[0\]: share above 1"),
    ({"kind": "a"}, r"own.kind = 'a' must be of type int \| None"), ([1], r"own = \[1\] must hold keys and values"),
    ({"stages": "x" * 10**6}, "own.stages = 'x+\\.\\.\\.x+' must be a list")])
def test_a_setting_of_a_wrong_type_is_named_with_what_is_needed(values, says):
    with pytest.raises(UsxError, match=says) as refusal:
        build(Parts, values, "own")
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("text", ["[" * 3000, "a: 2020-99-99", "a: " + "9" * 5000, "a: !!python/name:os.x 1"])
def test_a_file_that_leads_the_reader_astray_is_refused(tmp_path, text):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UsxError, match=r"own\.yaml is no YAML"):
        read_configuration(tmp_path / "own.yaml")


def test_a_model_that_is_no_name_is_refused():
    with pytest.raises(UsxError, match=r"model = \['paper'\] is unknown; known are paper, correction"):
        make_learner(Request({"model": ["paper"]}, (Path("x"),), None, "", 1, 0, torch.device("cpu")))


def test_configurations_are_found_by_name_or_path(tmp_path):
    assert read_configuration(find_configuration("paper"))["model"] == "paper"
    with pytest.raises(UsxError, match=r"'papper' is no file and not one of the packaged paper, paper_small"):
        find_configuration("papper")
    own = tmp_path / "own.yaml"
    own.write_text("training: {steps: 3")
    with pytest.raises(UsxError, match="is no YAML"):
        read_configuration(own)
    own.write_text("- 1\n")
    with pytest.raises(UsxError, match="must hold sections"):
        read_configuration(own)


def test_uneven_parts_are_refused():
    with pytest.raises(UsxError, match="a batch of 4 cannot be shared evenly by 3 processes"):
        TrainingSettings().part_size(3)
