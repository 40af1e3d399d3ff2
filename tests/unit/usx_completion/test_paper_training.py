"""The paper's network through the `train` command: one process and two, files of the authors' layout, completion."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from usx_common.errors import UsxError
from usx_completion.data.dataset import Dataset
from usx_completion.data.storage import write_authors_layout
from usx_completion.metrics import chamfer_t
from usx_completion.paper.clouds import CloudSettings, clouds_of, training_and_validation
from usx_completion.paper.completion import FORMAT, PaperCompletion, _shown
from usx_completion.paper.learner import PaperConfiguration, PaperLearner, variant_of
from usx_completion.paper.mean_cloud import mean_clouds
from usx_completion.paper.network import PaperNetwork, parameter_count
from usx_completion.paper.settings import VARIANTS, PaperNetworkSettings
from usx_completion.training.configuration import build, find_configuration, read_configuration
from usx_completion.training.processes import _status
from usx_completion.training.settings import TrainingSettings
from usx_completion.training.train import main
from usx_completion.training.weights import BadWeights, load_weights

SECTIONS = {
    "model": "paper",
    "network": {"coarse_points": 48, "output_points": 64, "encoder": [16, 32, 32], "code": 32, "latent": 8,
                "level_points": [40, 24, 16], "level_channels": [16, 32, 32, 32], "bottleneck": 32, "features": 32,
                "head": 16},
    "data": {"partial_points": 64, "xray_points": 48, "complete_points": 96},
    "training": {"steps": 6, "epochs": 0, "batch": 4, "validations": 2, "select": "cd_t_e4",
                 "optimiser": {"rate": 0.001}},
}


def ellipsoids(count: int, seed: int, first: int = 0) -> Dataset:
    """Halves of ellipsoids to complete, and their outlines."""
    random = np.random.default_rng(seed)
    complete = random.normal(size=(count, 96, 3))
    complete *= random.uniform(0.2, 0.4, (count, 1, 3)) / np.linalg.norm(complete, axis=-1, keepdims=True)
    partial = np.where(complete[:, :, 1:2] > 0, complete, complete * [1, -1, 1])
    labels = np.arange(count) % 5
    ids = np.asarray([f"person{first + n}" for n in range(count)])
    return Dataset(partial, complete, complete[:, :48] * [0, 1, 1], labels, ids)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    write_authors_layout(folder / "train.h5", ellipsoids(10, 0))
    write_authors_layout(folder / "val.h5", ellipsoids(5, 1, first=10))
    (folder / "tiny.yaml").write_text(yaml.safe_dump(SECTIONS))
    return folder


def train(files, out, *more: str) -> int:
    return main(["--config", str(files / "tiny.yaml"), "--data", str(files / "train.h5"), "--validation",
                 str(files / "val.h5"), "--out", str(out), "--quiet", "--threads", "1", *more])


@pytest.fixture(scope="module")
def trained(files):
    assert train(files, files / "one") == 0
    return files / "one"


def test_two_processes_give_the_parameters_of_one(files, trained, tmp_path):
    assert train(files, tmp_path / "two", "--processes", "2") == 0
    one, two = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (trained, tmp_path / "two"))
    assert one["step"] == two["step"] == 6
    torch.manual_seed(42)
    untrained = PaperNetwork(build(PaperNetworkSettings, SECTIONS["network"], "network")).state_dict()
    for name, value in one["module"].items():
        torch.testing.assert_close(two["module"][name], value, atol=1e-6, rtol=0)
    assert max((value - untrained[name]).abs().max() for name, value in one["module"].items()) > 1e-3


def test_torchrun_gives_the_parameters_of_one_process(files, trained, tmp_path):
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
           "usx_completion.training.train", "--config", str(files / "tiny.yaml"), "--data", str(files / "train.h5"),
           "--validation", str(files / "val.h5"), "--out", str(tmp_path), "--quiet", "--threads", "1"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (trained, tmp_path))
    for name, value in one["module"].items():
        torch.testing.assert_close(two["module"][name], value, atol=1e-6, rtol=0)
    assert PaperCompletion.load(tmp_path / "model.safetensors").card["processes"] == "2"


def test_weights_come_with_a_card_and_complete_a_cloud(trained, files):
    completion = PaperCompletion.load(trained / "model.safetensors")
    card = completion.card
    assert completion.variant == card["variant"] == "ef_lf"
    assert json.loads(card["network"])["code"] == 32 and card["samples"] == "10" and len(card["data_sha256"]) == 64
    sample = ellipsoids(5, 1)
    answer = completion.complete(sample.incomplete[0], sample.labelmaps[0])
    assert answer.shape == (4096, 3) and np.isfinite(answer).all()
    assert np.array_equal(answer, completion.complete(sample.incomplete[0], sample.labelmaps[0]))
    drawn = completion.complete(sample.incomplete[0], sample.labelmaps[0], seed=1)
    assert not np.array_equal(answer, drawn)
    assert np.array_equal(drawn, completion.complete(sample.incomplete[0], sample.labelmaps[0], seed=1))
    assert completion.complete(sample.incomplete[0][:1], sample.labelmaps[0][:5]).shape == (4096, 3)  # repeated


@pytest.mark.parametrize("there", [1000, 400, 250, 60])
def test_every_pass_is_shown_as_many_points_as_it_can(there):
    cloud = np.random.default_rng(0).normal(size=(there, 3))
    passes = _shown(cloud, 100, 4, "partial")
    assert passes.shape == (4, 100, 3)
    distinct = [{tuple(point) for point in part} for part in passes.tolist()]
    assert all(len(part) == min(there, 100) for part in distinct)
    assert len(set.union(*distinct)) == min(there, 400)  # none is left out


@pytest.mark.parametrize(("partial", "filled", "says"), [
    (np.zeros((0, 3)), np.zeros((9, 3)), r"partial cloud has shape \(0, 3\)"),
    (np.zeros((9, 2)), np.zeros((9, 3)), r"partial cloud has shape \(9, 2\)"),
    (np.zeros((9, 3)), None, "ef_lf needs the X-ray"),
    (np.zeros((9, 3)), np.full((9, 3), np.nan), "X-ray cloud holds numbers that are not finite")])
def test_bad_clouds_are_refused(trained, partial, filled, says):
    with pytest.raises(UsxError, match=says):
        PaperCompletion.load(trained / "model.safetensors").complete(partial, filled)


def test_the_variant_switches_both_fusions(files, tmp_path, capsys):
    assert train(files, tmp_path, "--variant", "baseline") == 0
    printed = capsys.readouterr().out
    assert "mean cloud of each level: cd_t_e4" in printed
    assert " parameters, 10 samples to train on, 5 to validate on" in printed
    completion = PaperCompletion.load(tmp_path / "model.safetensors")
    assert completion.variant == "baseline"
    assert completion.complete(ellipsoids(1, 1).incomplete[0]).shape == (4096, 3)
    tensors, card = load_weights(tmp_path / "model.safetensors", FORMAT)
    assert not any(name.startswith("xray_encoder") for name in tensors) and card["variant"] == "baseline"


@pytest.mark.parametrize(("more", "says"), [
    (["--variant", "both"], "variant 'both' is unknown; known are baseline, ef, lf, ef_lf"),
    (["--processes", "3"], "cannot be shared evenly by 3"),
    (["--device", "cuda:99"], "device 'cuda:99' cannot be used"),
    (["--minutes", "-1"], "--minutes -1.0 must be within")])
def test_bad_options_end_with_one_line(files, tmp_path, capsys, more, says):
    assert train(files, tmp_path / "out", *more) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_bad_input_that_one_of_two_processes_meets_ends_with_one_line_too(files, tmp_path, capfd):
    """In the process that validates, while the other waits for its gradients."""
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({**SECTIONS, "training": {**SECTIONS["training"], "select": "best"}}))
    assert train(files, tmp_path / "out", "--processes", "2", "--config", str(own)) == 2
    error = capfd.readouterr().err
    assert "select = 'best' is no figure of this model" in error and error.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_processes_without_a_gpu_are_refused_before_they_start(files, tmp_path, capfd):
    assert train(files, tmp_path / "out", "--processes", "2", "--device", "cuda") == 2
    assert capfd.readouterr().err == "train: device 'cuda' cannot be used: torch finds no GPU\n"


def test_a_process_that_is_killed_is_told():
    ended = [SimpleNamespace(exitcode=code) for code in (None, -9)]
    with pytest.raises(UsxError, match="process 1 of the training was ended by signal 9"):
        _status(ended)
    assert _status([SimpleNamespace(exitcode=code) for code in (130, 2)]) == 130
    assert _status([SimpleNamespace(exitcode=code) for code in (-15, 2)]) == 2


def test_an_earlier_training_is_not_overwritten_by_accident(files, trained, capsys):
    assert train(files, trained) == 2
    assert "give --resume to go on, --overwrite, or another --out" in capsys.readouterr().err


def test_the_authors_files_need_one_to_validate_on(files, tmp_path, capsys):
    assert main(["--config", str(files / "tiny.yaml"), "--data", str(files / "train.h5"), "--out", str(tmp_path)]) == 2
    assert "give the file to validate on with --validation" in capsys.readouterr().err
    with pytest.raises(UsxError, match=r"sample person0 of .* is also in"):
        training_and_validation(files / "train.h5", files / "train.h5")


def test_every_epoch_shows_every_sample_once():
    data = ellipsoids(10, 0)
    settings = build(PaperConfiguration, {key: SECTIONS[key] for key in ("network", "data")}, "test")
    clouds = clouds_of(data, settings.data)
    learner = PaperLearner(settings, clouds, clouds, 4, 0, torch.device("cpu"))
    whole, left, right = (learner.batches(0, *share) for share in ((0, 1), (0, 2), (1, 2)))
    batches = [next(whole) for _ in range(5)]  # two epochs
    for batch in batches:
        one, other = next(left), next(right)
        assert torch.equal(torch.cat([one.complete, other.complete]), batch.complete)
        assert one.seeds + other.seeds == batch.seeds
    seen = torch.cat([batch.complete[:, 0, 0] for batch in batches]).reshape(2, 10)
    assert torch.equal(seen.sort().values, clouds.complete[:, 0, 0].sort().values.expand(2, -1))
    assert not torch.equal(seen[0], seen[1])
    later = next(learner.batches(3, 0, 1))  # where a resumed training begins
    assert torch.equal(later.partial, batches[3].partial) and later.seeds == batches[3].seeds


def test_clouds_are_thinned_to_their_furthest_points():
    clouds = clouds_of(ellipsoids(5, 0), CloudSettings(32, 16, 96), most=3)
    assert clouds.partial.shape == (3, 32, 3) and clouds.filled.shape == (3, 16, 3)
    assert clouds.labels.tolist() == [0, 2, 4]
    assert clouds.complete.shape == (3, 96, 3)


def test_the_card_tells_the_licence_of_the_data(trained):
    told = replace(ellipsoids(5, 0), attributes={"source": "model fd7e", "licence": "CC BY-SA 4.0: people"})
    notes = clouds_of(told, CloudSettings(32, 16, 96)).notes
    assert notes["licence"] == "CC BY-SA 4.0: people" and notes["data"] == "source model fd7e"
    assert load_weights(trained / "model.safetensors", FORMAT)[1]["licence"] == "unknown"  # the file does not say


def test_the_mean_cloud_is_central():
    data = ellipsoids(10, 0)
    means = mean_clouds(data, 96)
    assert sorted(means) == [0, 1, 2, 3, 4]
    level = data.complete[data.labels == 2]
    assert any(np.array_equal(means[2], cloud) for cloud in level)
    assert chamfer_t(means[2], level[0]) == pytest.approx(chamfer_t(means[2], level[1]), abs=0.2)


def test_foreign_weights_are_refused(trained, tmp_path):
    with pytest.raises(BadWeights, match="do not exist"):
        PaperCompletion.load(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(BadWeights, match="cannot be read as safetensors"):
        PaperCompletion.load(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("name", ["paper", "paper_small"])
def test_packaged_configurations_are_complete_and_valid(name):
    sections = read_configuration(find_configuration(name))
    training = build(TrainingSettings, sections["training"], "training")
    settings = build(PaperConfiguration, {key: sections[key] for key in ("network", "loss", "data")}, name)
    assert training.batch % 2 == 0 and training.select == "cd_t_e4"
    if name == "paper_small":
        counts = {variant: parameter_count(PaperNetwork(variant_of(settings.network, variant))) for variant in VARIANTS}
        assert counts == {"baseline": 966_091, "lf": 966_091, "ef": 1_282_827, "ef_lf": 1_282_827}
    else:
        assert settings == PaperConfiguration() and training.total_steps(447) == 11_175
        assert training.optimiser.rate == 1e-4 and training.schedule.at == (0.4, 0.8)
