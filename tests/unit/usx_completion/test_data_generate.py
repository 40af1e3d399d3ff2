"""make_dataset and the iterator: the same samples from file, from memory and by any number of processes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, write_mesh
from usx_completion.data.dataset import from_samples
from usx_completion.data.generate import checked, main, parser
from usx_completion.data.mesh_spines import MeshFolderSpines
from usx_completion.data.model_spines import ModelSpines
from usx_completion.data.online import OnlineSpines
from usx_completion.data.presets import REALISTIC, SampleSettings, preset_named
from usx_completion.data.spine_sample import change_posture
from usx_completion.data.spine_source import SourceChoice, open_source
from usx_completion.data.splits import check_no_straddling
from usx_completion.data.storage import read_dataset
from usx_completion.data.xray_cloud import CloudSizes
from usx_phantom.posture import PostureSpread

SMALL = ["--points", "256", "--xray-points", "128", "--quiet"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Six spines of the realistic preset, three postures of each subject, by two processes."""
    path = tmp_path_factory.mktemp("data") / "set.h5"
    options = ["--out", str(path), "--spines", "6", "--seed", "5", "--preset", "realistic", "--deformations", "3",
               "--split", "0/50/50", "--jobs", "2", "--authors-files", *SMALL]
    assert main(options) == 0
    return path


def test_processes_files_and_the_iterator_agree_bit_for_bit(made):
    stored = read_dataset(made)
    settings = SampleSettings(REALISTIC, 256, CloudSizes(128))
    fresh = OnlineSpines(5, settings, SourceChoice("model", 5, 3))
    for index in (0, 4):
        samples = fresh.spine(index)
        mine = from_samples(samples, [index] * len(samples), ["any"] * len(samples), ModelSpines().faces)
        theirs = stored.chosen(stored.extras.spine == index)
        for name in ("incomplete", "complete", "labelmaps", "labels", "ids"):
            np.testing.assert_array_equal(getattr(theirs, name), getattr(mine, name))
        for name in ("owners", "outlines", "level_to_spine", "normalised_to_spine", "vertices", "subjects"):
            np.testing.assert_array_equal(getattr(theirs.extras, name), getattr(mine.extras, name))


def test_deformations_of_a_subject_are_in_one_split(made):
    stored = read_dataset(made)
    check_no_straddling(list(stored.extras.subjects), list(stored.extras.splits))
    assert len(np.unique(stored.extras.subjects)) == 2 and len(np.unique(stored.extras.splits)) == 2
    first = stored.chosen(stored.extras.subjects == stored.extras.subjects[0])
    assert len(np.unique(first.extras.spine)) == 3
    assert {text.rsplit("_", 1)[1] for text in first.ids} == {f"deformation{k}" for k in range(3)}


def test_the_file_says_what_it_was_made_from(made):
    attributes = read_dataset(made).attributes
    assert attributes["preset"] == "realistic" and attributes["seed"] == "5"
    assert attributes["source"].startswith("model ") and '"points": 256' in attributes["settings"]


def test_files_of_the_authors_layout_hold_one_split_each(made):
    stored = read_dataset(made)
    for name in ("val", "test"):
        part = read_dataset(made.with_name(f"set_{name}.h5"))
        assert part.extras is None
        np.testing.assert_array_equal(part.ids, stored.split(name).ids)
    assert not made.with_name("set_train.h5").exists()


@pytest.mark.parametrize("options, reason", [
    (["--spines", "0"], "--spines 0"), (["--split", "1/2"], "split '1/2'"), (["--source", "nowhere"], "nowhere"),
    (["--jobs", "0"], "--jobs 0"), (["--points", "3"], "--points 3"), (["--seed", "-1"], "--seed -1"),
    (["--deformations", "0"], "--deformations 0"), (["--source", "/"], "no sub-folder"),
])
def test_bad_options_end_with_one_line_and_status_2(tmp_path, capsys, options, reason):
    assert main(["--out", str(tmp_path / "x.h5"), "--quiet", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("make_dataset: ") and reason in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_one_line_too(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file" / "x.h5"), "--spines", "1", *SMALL]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_existing_file_is_kept_unless_told_otherwise(made, capsys):
    before = made.read_bytes()
    assert main(["--out", str(made), "--spines", "1", *SMALL]) == 2
    assert "--overwrite" in capsys.readouterr().err and made.read_bytes() == before


def test_one_odd_spine_does_not_cost_the_others(monkeypatch):
    from usx_completion.data import generate

    class Odd:
        source = ModelSpines()

        def samples(self, index):
            if index == 1:
                raise UsxError("no canal")
            return []

    monkeypatch.setattr(generate, "_maker", Odd())
    assert generate._make(1, "train") == "spine 1: no canal"
    assert "too little" in generate._make(0, "train")


def test_options_choose_preset_crop_and_drop_rules():
    task = checked(parser().parse_args(["--out", "x.h5", "--crop", "placed_mean", "--authors-drops"]))
    assert task.settings.preset == preset_named("paper", "placed_mean") and task.settings.drops.oversized
    with pytest.raises(UsxError, match="unknown"):
        preset_named("perfect")
    with pytest.raises(UsxError, match="unknown"):
        preset_named("paper", "round")


def test_workers_share_the_iterator_without_overlap_and_an_epoch_may_start_anywhere():
    settings = SampleSettings(points=64, xray=CloudSizes(64, 16))
    every = [samples[0].subject for samples, _ in zip(OnlineSpines(1, settings), range(3), strict=False)]
    parts = [next(iter(OnlineSpines(1, settings, worker=k, workers=2))) for k in (0, 1)]
    assert [part[0].subject for part in parts] == every[:2] and len(set(every)) == 3
    later = next(iter(OnlineSpines(1, settings, worker=0, workers=2, first=2)))
    assert later[0].subject == every[2]


def test_seeds_give_other_people():
    names = {open_source(SourceChoice("model", seed)).subject(index) for seed in range(2) for index in range(4)}
    assert len(names) == 8
    with pytest.raises(UsxError, match="seed"):
        open_source(SourceChoice("model", 5000))


def test_a_posture_moves_bones_rigidly_and_keeps_the_spine_in_place(data_spine):
    bent = change_posture(data_spine, PostureSpread(), 3)
    turns = []
    for level in LEVELS:
        motion = bent.level_to_spine[level] @ np.linalg.inv(data_spine.level_to_spine[level])
        np.testing.assert_allclose(motion[:3, :3] @ motion[:3, :3].T, np.eye(3), atol=1e-9)
        moved = data_spine.meshes[level].vertices @ motion[:3, :3].T + motion[:3, 3]
        np.testing.assert_allclose(bent.meshes[level].vertices, moved, atol=1e-9)
        turns.append(np.degrees(np.arccos(np.clip(0.5 * (np.trace(motion[:3, :3]) - 1), -1, 1))))
    assert 0.2 < max(turns) < 20.0
    shift = np.mean([bent.level_to_spine[level][:3, 3] - data_spine.level_to_spine[level][:3, 3] for level in LEVELS],
                    axis=0)
    assert np.linalg.norm(shift) < 0.5


def test_people_come_from_a_folder_in_turn_and_incomplete_ones_are_listed(tmp_path, data_spine):
    mirror = np.diag([-1.0, -1.0, 1.0, 1.0])  # LPS to RAS
    for name, levels in (("anna", LEVELS), ("bert", LEVELS), ("carl", LEVELS[:3])):
        (tmp_path / name).mkdir()
        for level in levels:
            write_mesh(tmp_path / name / f"{level}.ply", data_spine.meshes[level].transformed(mirror))
    source = MeshFolderSpines(tmp_path)
    assert source.people == ["anna", "bert"] and source.skipped == ["carl"]
    samples = [source.sample(index) for index in range(4)]
    assert [sample.subject for sample in samples] == ["anna", "bert", "anna", "bert"]
    assert [sample.deformation for sample in samples] == [0, 0, 1, 1]
    true = data_spine.meshes["L3"].vertices
    assert np.ptp(samples[0].meshes["L3"].vertices - true, axis=0).max() < 1e-3
    assert np.abs(samples[2].meshes["L1"].vertices - samples[0].meshes["L1"].vertices).max() > 0.2
    assert isinstance(samples[0].meshes["L1"], Mesh) and not samples[0].corresponding


def test_the_node_needs_neither_the_data_package_nor_hdf5():
    """Everything the node imports, with h5py and the data package out of reach."""
    code = ("import sys\n"
            "class Block:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name == 'h5py' or name.startswith(('usx_completion.data', 'usx_phantom')):\n"
            "            raise ImportError('blocked: ' + name)\n"
            "sys.meta_path.insert(0, Block())\n"
            "try:\n"
            "    import rclpy\n"
            "except ModuleNotFoundError:\n"
            "    from usx_runtime import hook; hook.install()\n"
            "import usx_completion.node\n")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
