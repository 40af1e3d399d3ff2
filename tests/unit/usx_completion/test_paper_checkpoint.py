"""Conversion of a checkpoint as the authors write it, made of our own network under other names."""

from __future__ import annotations

import random

import pytest
import torch

from usx_common.errors import UsxError
from usx_completion.paper.checkpoint_layout import matched
from usx_completion.paper.completion import PaperCompletion
from usx_completion.paper.convert_checkpoint import convert, main, read_state
from usx_completion.paper.network import PaperNetwork
from usx_completion.paper.settings import PaperNetworkSettings

TINY = PaperNetworkSettings(coarse_points=48, output_points=64, encoder=(16, 24, 32), code=40, latent=8,
                            level_points=(40, 24, 16), level_channels=(16, 32, 32, 32), bottleneck=48, features=36,
                            head=20)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return PaperNetwork(TINY)


def foreign(network: PaperNetwork) -> dict[str, torch.Tensor]:
    """Our tensors under names that tell nothing, layers of the refinement as convolutions."""
    state = {}
    for number, (name, tensor) in enumerate(network.state_dict().items()):
        layer = tensor[..., None, None] if name.startswith("refinement") and tensor.dim() == 2 else tensor
        state[f"module.block{number}.{'weight' if tensor.dim() > 1 else 'bias'}"] = layer
    return state


@pytest.fixture
def checkpoint(network, tmp_path):
    path = tmp_path / "theirs.pth"
    torch.save({"net_state_dict": foreign(network), "epoch": 3}, path)
    return path


def test_a_checkpoint_becomes_the_network_it_was(network, checkpoint, tmp_path, capsys):
    out = tmp_path / "ours.safetensors"
    assert main(["--checkpoint", str(checkpoint), "--out", str(out)], TINY) == 0
    loaded = PaperCompletion.load(out)
    for name, value in network.state_dict().items():
        assert torch.equal(loaded._network.state_dict()[name], value)
    assert main(["--checkpoint", str(checkpoint), "--out", str(out)], TINY) == 2
    assert "exists: give --overwrite" in capsys.readouterr().err


def test_a_table_of_names_beats_any_order(network, checkpoint, tmp_path):
    table = tmp_path / "names.txt"
    assert main(["--checkpoint", str(checkpoint), "--propose", str(table)], TINY) == 0
    lines = [line.split("#")[0].split() for line in table.read_text().splitlines()]
    assert "# by order" in table.read_text() and len(lines) == len(network.state_dict())
    state = read_state(checkpoint)
    names = list(state)
    random.Random(0).shuffle(names)
    mixed = {name: state[name] for name in names}
    right = convert(mixed, TINY, dict(lines))
    assert all(torch.equal(right[name], value) for name, value in network.state_dict().items())
    wrong = convert(mixed, TINY, None)  # shapes fit, but the order is not ours
    assert not all(torch.equal(wrong[name], value) for name, value in network.state_dict().items())


def test_what_does_not_fit_is_listed(network, checkpoint, tmp_path, capsys):
    state = read_state(checkpoint)
    first = next(iter(state))
    cut = {name: tensor for name, tensor in state.items() if name != first}
    with pytest.raises(UsxError, match=r"xray_encoder.first.weight \(16, 3\) is not given"):
        matched(cut, network, None)
    with pytest.raises(UsxError, match=r"extra \(7, 5\) of the checkpoint has no place here"):
        matched({**state, "extra": torch.zeros(7, 5)}, network, None)
    assert main(["--checkpoint", str(checkpoint), "--variant", "baseline", "--out", str(tmp_path / "x")], TINY) == 2
    error = capsys.readouterr().err
    assert "has no place here" in error and error.count("\n") == 1


def test_files_that_run_code_are_refused(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"net_state_dict": {"a": torch.zeros(2)}, "more": pytest.raises}, path)
    with pytest.raises(UsxError, match="cannot be read as a checkpoint of tensors"):
        read_state(path)
    torch.save({"weights": {}}, path)
    with pytest.raises(UsxError, match="holds no net_state_dict"):
        read_state(path)
    with pytest.raises(UsxError, match="does not exist"):
        read_state(tmp_path / "none.pth")


def test_a_bad_table_is_refused_by_its_line(checkpoint, tmp_path, capsys):
    table = tmp_path / "names.txt"
    table.write_text("block0.weight ultrasound_encoder.first.weight\nblock1.bias ?\n")
    command = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), "--table", str(table)]
    assert main(command, TINY) == 2
    assert "line 2: 'block1.bias ?'" in capsys.readouterr().err
