"""make_dataset and the iterator: the same samples from file, from memory and by any number of processes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, write_mesh
from usx_completion.data.dataset import from_samples
from usx_completion.data.generate import Task, checked, main, parser
from usx_completion.data.mesh_spines import MeshFolderSpines
from usx_completion.data.model_spines import ModelSpines
from usx_completion.data.online import OnlineSpines
from usx_completion.data.presets import PAPER, REALISTIC, SampleSettings, preset_named
from usx_completion.data.spine_sample import change_posture
from usx_completion.data.spine_source import SourceChoice, open_source
from usx_completion.data.splits import check_no_straddling
from usx_completion.data.storage import read_dataset
from usx_completion.data.visibility_realistic import FaultSettings
from usx_completion.data.xray_cloud import CloudSizes
from usx_completion.shape_model import PACKAGED, PACKAGED_REAL, load_shape_model
from usx_completion.surface_distance import surface_distances
from usx_phantom.posture import PostureSpread

SMALL = ["--points", "256", "--xray-points", "128", "--quiet"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Six spines of the realistic preset, three postures of each subject, by two processes."""
    path = tmp_path_factory.mktemp("data") / "set.h5"
    options = ["--out", str(path), "--source", "model", "--spines", "6", "--seed", "5", "--preset", "realistic",
               "--deformations", "3", "--split", "0/50/50", "--jobs", "2", "--authors-files", *SMALL]
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


def test_the_licence_of_the_shapes_goes_with_the_file(made):
    """CC BY-SA binds whoever learns from spines of real people, through their shape model too."""
    licence = load_shape_model(PACKAGED)[1]["licence"]
    assert read_dataset(made).attributes["licence"] == licence
    assert read_dataset(made.with_name("set_val.h5")).attributes["licence"] == licence
    assert open_source(SourceChoice()).licence == load_shape_model(PACKAGED_REAL)[1]["licence"]
    assert open_source(SourceChoice()).licence.startswith("CC BY-SA 4.0: learned from VerSe")
    assert MeshFolderSpines.licence == "unknown"


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
    (["--seed", "1900"], "--seed 1900 is of 1900 .. 1999, the seeds kept for tests"),
    (["--seed", "2000"], "--seed 2000 must"),
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


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_no_file_of_the_authors_layout_is_replaced_unless_told(tmp_path, capsys, name):
    (tmp_path / f"x_{name}.h5").write_text("a year's work")
    assert main(["--out", str(tmp_path / "x.h5"), "--authors-files", *SMALL]) == 2
    assert f"x_{name}.h5 exists" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [f"x_{name}.h5"]


def test_people_stay_in_their_split_when_the_seed_or_the_number_of_spines_changes(monkeypatch, tmp_path):
    """Of a folder's people, and of the sampled ones that two files share."""
    from usx_completion.data import generate

    class Folder:
        name, faces, licence, people = "six people", None, "unknown", ["anna", "bert", "carl", "dora", "emil", "fred"]

        def subject(self, index):
            return self.people[index % 6]

    def told(*options):
        asked = []
        with monkeypatch.context() as patch:
            patch.setattr(generate, "generate", lambda task, splits, jobs: asked.append(splits) or iter(()))
            if "folder" in options:
                patch.setattr(generate, "open_source", lambda choice: Folder())
            assert main(["--out", str(tmp_path / "x.h5"), "--quiet", "--source", *options]) == 2  # no sample to write
        return asked[0]

    few, many, again = (told("folder", *options) for options in
                        (["--spines", "4"], ["--spines", "12", "--seed", "7"], ["--spines", "4", "--split-seed", "2"]))
    assert many == (few + many[4:6]) * 2 and len(set(many)) == 3 and again != few
    assert told("model", "--spines", "30")[:12] == told("model", "--spines", "12", "--deformations", "1")


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


def test_a_sweep_that_sees_nothing_is_a_counted_reason(monkeypatch):
    from usx_completion.data import generate

    nothing = FaultSettings(lost_frames=1.0, streaks=(0.0, 0.0), stray=(0.0, 0.0))
    blind = replace(REALISTIC, visibility=replace(REALISTIC.visibility, faults=nothing))
    maker = generate.Maker(Task(SourceChoice("model"), SampleSettings(blind, 256, CloudSizes(128)), 0))
    monkeypatch.setattr(generate, "_maker", maker)
    assert generate._make(0, "train") == "spine 0: the ultrasound shows no point, so the X-ray cannot be placed amid it"


def test_training_goes_on_after_an_odd_spine_but_not_for_ever(monkeypatch):
    spines = OnlineSpines(1, SampleSettings(points=64, xray=CloudSizes(64, 16)))

    def some(index):
        if index != 3:
            raise UsxError("no canal")
        return ["three"]

    monkeypatch.setattr(spines, "spine", some)
    endless = iter(spines)
    assert next(endless) == ["three"]
    with pytest.raises(UsxError, match=r"50 spines on end.*no canal"):
        next(endless)


@pytest.mark.parametrize("preset", [PAPER, REALISTIC], ids=lambda preset: preset.name)
def test_the_frame_of_an_examination_comes_from_what_was_seen(preset):
    """The mean of the true vertices would be the origin otherwise, and tell where unseen bone lies."""
    spines = OnlineSpines(3, SampleSettings(preset, 64, CloudSizes(64, 16)), SourceChoice("model", 3))
    truth, observed = spines.examined(0)
    assert np.abs(observed.seen.points.mean(axis=0)).max() < 1e-9
    middle = np.concatenate([mesh.vertices for mesh in truth.meshes.values()]).mean(axis=0)
    assert np.linalg.norm(middle) > 5.0
    own = observed.seen.points[observed.seen.owners == 22][::20]
    assert np.median(surface_distances(own, truth.meshes["L3"])) < 2.0  # they moved together
    body = truth.meshes["L3"].vertices[truth.body["L3"]]
    assert np.linalg.norm(observed.bodies["L3"].outline.mean(axis=0) - body.mean(axis=0)) < 30.0
    sample = spines.spine(0)[2]
    np.testing.assert_array_equal(sample.level_to_spine, truth.level_to_spine[sample.level])


def test_options_choose_preset_crop_and_drop_rules():
    task = checked(parser().parse_args(["--out", "x.h5", "--crop", "placed_mean", "--authors-drops"]))
    assert task.settings.preset == preset_named("paper", "placed_mean") and task.settings.drops.oversized
    task = checked(parser().parse_args(["--out", "x.h5", "--preset", "authors"]))
    assert task.settings.drop_rules.oversized and task.settings.drop_rules.sparse
    assert not checked(parser().parse_args(["--out", "x.h5"])).settings.drop_rules.sparse
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


def test_a_shape_model_file_and_the_packaged_models_are_sources(tmp_path):
    """Each with its own mean spine for the crop, and people that are no other model's."""
    from usx_completion.data import generate

    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(PACKAGED_REAL.read_bytes())
    sources = {kind: open_source(SourceChoice(kind, 1)) for kind in ("model", "real", str(copy))}
    assert len({source.subject(0) for source in sources.values()}) == 3
    assert sources["real"].subject(0) == "real-2000000" and SourceChoice().kind == "real"
    mine, real = (sources[kind].sample(0).meshes["L3"].vertices for kind in (str(copy), "real"))
    np.testing.assert_array_equal(mine, real)
    for kind, path in (("model", PACKAGED), ("real", PACKAGED_REAL), (str(copy), PACKAGED_REAL)):
        maker = generate.Maker(Task(SourceChoice(kind), SampleSettings(), 0))
        np.testing.assert_array_equal(maker._chain.means, load_shape_model(path)[0].means)
    assert parser().parse_args(["--out", "x.h5"]).source == "real"
    copy.write_bytes(b"no model")
    with pytest.raises(UsxError, match="cannot be read"):
        open_source(SourceChoice(str(copy)))
    with pytest.raises(UsxError, match="does not exist"):
        open_source(SourceChoice(str(tmp_path / "none.safetensors")))


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
    with pytest.raises(UsxError, match="deformations 3 are for sampled spines"):
        open_source(SourceChoice(str(tmp_path), deformations=3))
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
