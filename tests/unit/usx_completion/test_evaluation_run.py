"""Whole evaluations: the command, any number of processes, methods that fail, recorded acquisitions."""

from __future__ import annotations

import csv
import json
import pickle
import shutil

import numpy as np
import pytest
import yaml

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_common.meshes import write_mesh
from usx_common.transforms import apply, make_transform
from usx_completion.evaluation.acquisitions import acquisition_case
from usx_completion.evaluation.case import CaseName
from usx_completion.evaluation.datasets import DatasetPlan, Wanted, plan_datasets
from usx_completion.evaluation.evaluate import main
from usx_completion.evaluation.methods import FACTORIES, MethodOptions, modes_only, shape_of
from usx_completion.evaluation.report import VERTEBRA_COLUMNS
from usx_completion.evaluation.running import Evaluator, Job
from usx_completion.evaluation.scoring import score, true_surfaces
from usx_completion.evaluation.settings import PACKAGED_SETTINGS, read_settings
from usx_completion.evaluation.shape_spread import packaged_model, spread_of
from usx_completion.evaluation.summary import write_csv
from usx_completion.metrics import surface_points
from usx_completion.rigid import align
from usx_completion.simulated_partial import simulate_partial


@pytest.fixture(scope="module")
def settings_file(tmp_path_factory):
    """The packaged settings with two spines a dataset at --quick."""
    path = tmp_path_factory.mktemp("settings") / "settings.yaml"
    path.write_text(PACKAGED_SETTINGS.read_text().replace("quick_spines: 1,", "quick_spines: 2,")
                    .replace("quick_spines: 1}", "quick_spines: 2}"))
    return path


@pytest.fixture(scope="module")
def without_weights(tmp_path_factory):
    """No network is packaged, whatever is shipped by now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("usx_completion.evaluation.networks.PACKAGED", tmp_path_factory.mktemp("none") / "model")
        yield


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, settings_file, without_weights):
    """The command with two processes on two synthetic spines."""
    out = tmp_path_factory.mktemp("evaluated") / "found"
    assert main(["--out", str(out), "--quick", "--quiet", "--datasets", "synthetic-paper", "--methods", "mean", "usx",
                 "--settings", str(settings_file), "--jobs", "2"]) == 0
    return out


@pytest.fixture(scope="module")
def evaluator(settings_file):
    wanted = Wanted(["synthetic-paper", "synthetic-realistic"], quick=True)
    return Evaluator(plan_datasets(read_settings(settings_file), wanted)[0], ["mean"])


@pytest.fixture(scope="module")
def result(evaluator):
    return evaluator.run(Job(0, 1))


def test_processes_change_nothing(evaluated, result, tmp_path):
    lines = (evaluated / "per_vertebra.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 5 * 3
    write_csv(tmp_path / "here.csv", VERTEBRA_COLUMNS, (row.flat() for row in result.rows))
    assert lines[1 + 5 * 3:] == (tmp_path / "here.csv").read_text().splitlines()[1:]


def test_the_command_writes_all_and_says_what_is_left_out(evaluated):
    names = {path.name for path in evaluated.iterdir()}
    assert names == {"table.md", "table.csv", "table.png", "per_vertebra.csv", "per_level.csv", "significance.csv",
                     "cases.png"}
    text = (evaluated / "table.md").read_text()
    assert "usx is left out" in text and "not independent" in text
    assert "| people left out, to the mean |" in text and "| synthetic-paper | mean | body | 10 |" in text
    with (evaluated / "table.csv").open(newline="") as file:
        rows = {row["part"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"whole", "arch", "body"}
    arch, body, whole = (float(rows[part]["assd_mm"]) for part in ("arch", "body", "whole"))
    glance, = (line for line in text.splitlines() if line.startswith("| synthetic-paper | mean | 10 |"))
    assert f" | {arch:.2f} / {body:.2f} | {whole:.2f} ± " in glance and glance.endswith("| - |")


def test_sampled_test_spines_are_as_wild_as_people_left_out(evaluator):
    rows = [row for number in range(5) for row in spread_of(evaluator.case(Job(0, number)))]
    spread = packaged_model().spread
    assert np.mean([row.left_over_mm for row in rows]) == pytest.approx(np.mean(spread.left_over_mm), rel=0.1)
    assert np.mean([row.to_mean_mm for row in rows]) == pytest.approx(np.mean(spread.to_mean_mm), rel=0.2)


class Odd:
    """Answers L1 with the truth as a cloud, L2 with nonsense, and leaves the rest out; keeps what it was given."""

    name = "odd"

    def __init__(self, cloud):
        self.cloud, self.given = cloud, None

    def complete(self, given):
        self.given = given
        return {"L1": self.cloud, "L2": np.zeros((2, 3))}


class Refusing:
    name = "refusing"

    def complete(self, given):
        raise UsxError("too little was seen\nof this spine")


def test_methods_that_leave_out_or_fail_are_counted_with_the_reason(evaluator):
    case = evaluator.case(Job(0, 0))
    surfaces = true_surfaces(case)
    odd = Odd(surface_points(case.truth["L1"], seed=1))
    rows = {row.level: row for row in score(case, odd, surfaces, emd=False) if row.part == "whole"}
    assert odd.given is case.given and not hasattr(odd.given, "truth")
    assert 0.0 < rows["L1"].metrics.assd_mm < 0.5 and rows["L1"].metrics.f1 > 0.9
    assert "cloud of shape (2, 3)" in rows["L2"].note and not rows["L2"].answered
    assert rows["L3"].note == "not completed" and np.isnan(rows["L3"].metrics.assd_mm)
    assert {row.note for row in score(case, Refusing(), surfaces)} == {"too little was seen of this spine"}


def test_a_spine_that_cannot_be_examined_costs_the_others_nothing(evaluator, monkeypatch):
    def fails(job):
        raise UsxError("the ultrasound shows no point of this spine")

    monkeypatch.setattr(evaluator, "case", fails)
    found = evaluator.run(Job(1, 0))
    assert (found.rows, found.reason) == ([], "the ultrasound shows no point of this spine")


def test_a_case_does_not_depend_on_the_cases_before_it(evaluator):
    first = evaluator.case(Job(1, 0))
    evaluator.case(Job(1, 1))
    second = evaluator.case(Job(1, 0))
    assert pickle.dumps(first) == pickle.dumps(second)


def test_modes_are_fitted_without_the_gaussian_process_and_the_mean_is_not_fitted(evaluator):
    assert {stage.columns for stage in modes_only()} == {"pose", "modes"}
    given = evaluator.case(Job(0, 0)).given
    few = np.random.default_rng(0).permutation(len(given.points))[::3]
    thinned = type(given)({}, given.points[few], given.labels[few], given.sources[few])
    placed, fitted = ({level: shape_of(answer) for level, answer in method.complete(thinned).items()}
                      for method in (*evaluator.methods, FACTORIES["SSM"](MethodOptions())))
    model = packaged_model()
    modes = model.modes.reshape(model.mode_count, -1)
    for level in LEVELS:
        mean = model.means[LEVELS.index(level)]
        assert np.abs(apply(align(placed[level].vertices, mean), placed[level].vertices) - mean).max() < 1e-3
        offset = (apply(align(fitted[level].vertices, mean), fitted[level].vertices) - mean).ravel()
        rest = offset - modes.T @ np.linalg.lstsq(modes.T, offset, rcond=None)[0]
        assert np.abs(offset).max() > 0.5 and rest.std() < 0.3 * offset.std()  # what is left is size


def test_a_folder_of_people_gives_rows_of_both_presets(tmp_path, data_spine):
    folder = tmp_path / "clinic"
    for person in ("ann", "bea"):
        (folder / person).mkdir(parents=True)
        for level, mesh in data_spine.meshes.items():
            write_mesh(folder / person / f"{level}.ply", mesh)
    wanted = Wanted(["synthetic-paper"], folder, "LPS", quick=True)
    plans, _ = plan_datasets(read_settings(), wanted)
    assert [(plan.name, plan.cases) for plan in plans] == [("synthetic-paper", 1), ("clinic-paper", 2),
                                                           ("clinic-realistic", 2)]
    alone, _ = plan_datasets(read_settings(), Wanted(["meshes"], folder, "LPS"))
    assert [(plan.name, plan.cases) for plan in alone] == [("clinic-paper", 6), ("clinic-realistic", 6)]
    case = plans[1].open().case(1)
    assert (case.dataset, case.subject, list(case.truth)) == ("clinic-paper", "bea", list(LEVELS))
    assert list(case.given.inputs) == list(LEVELS)


def test_a_folder_with_the_name_of_a_fixed_dataset_gets_rows_of_its_own(tmp_path, data_spine):
    folder = tmp_path / "real"
    (folder / "ann").mkdir(parents=True)
    for level, mesh in data_spine.meshes.items():
        write_mesh(folder / "ann" / f"{level}.ply", mesh)
    plans, notes = plan_datasets(read_settings(), Wanted(["meshes"], folder, "LPS"))
    assert [plan.name for plan in plans] == ["real-meshes-paper", "real-meshes-realistic"]
    assert len(notes) == 1 and "are named real-meshes-paper" in notes[0] and "real-paper is a fixed" in notes[0]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, data_spine):
    """A folder as the demo writes it, of a spine seen in a frame that is turned and moved against the truth's."""
    folder = tmp_path_factory.mktemp("recorded")
    partial = simulate_partial(dict(data_spine.meshes))
    metres = partial.points / 1000.0
    np.savez(folder / "results.npz", **{f"cloud|spine/partial|{name}": values.astype(np.float32) for name, values in
                                        zip(("x", "y", "z", "label", "source"),
                                            (*metres.T, partial.labels, partial.sources), strict=True)})
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    spine_to_volume, volume_to_world = make_transform(turn, [5.0, 6, 7]), make_transform(np.eye(3), [100.0, 0, 30])
    cbct_to_world = make_transform(turn.T, [1.0, 2, 3])
    facts = {"transforms": {"us_volume_to_world": volume_to_world.ravel().tolist(),
                            "spine_to_us_volume": spine_to_volume.ravel().tolist()}}
    (folder / "results.json").write_text(json.dumps(facts))
    truth = folder / "acquisition" / "truth"
    truth.mkdir(parents=True)
    (truth / "transforms.yaml").write_text(yaml.safe_dump({"cbct_to_world": cbct_to_world.ravel().tolist()}))
    spine_to_cbct = np.linalg.inv(cbct_to_world) @ volume_to_world @ spine_to_volume
    for level, mesh in data_spine.meshes.items():
        write_mesh(truth / f"{level}.ply", mesh.transformed(spine_to_cbct))
    return folder


def test_a_recorded_acquisition_is_brought_into_frame_spine(recorded, data_spine):
    plan = DatasetPlan("acquisition", 1, recorded=(recorded,))
    case = plan.open().case(0)
    for level, mesh in data_spine.meshes.items():
        np.testing.assert_allclose(case.truth[level].vertices, mesh.vertices, atol=1e-3)
    mine = case.given.inputs["L3"]
    labelled = case.given.points[(case.given.labels == 22) & (case.given.sources == 0)]
    assert case.units["L3"] == pytest.approx(np.ptp(labelled[:, 0]) + 30.0)
    assert mine.partial.shape == mine.filled.shape == (4096, 3) and mine.outline.shape == (96, 3)
    body = case.given.points[(case.given.labels == 22) & (case.given.sources == 1)]
    outline = mine.normalisation.invert(mine.outline)
    assert np.abs(outline.min(axis=0) - body.min(axis=0)).max() < 2.0
    assert np.abs(outline.max(axis=0) - body.max(axis=0)).max() < 2.0
    flat = (outline - outline.mean(axis=0))[:, 1:]
    assert np.mean(np.einsum("ni,ni->n", flat, mine.outline_normals) > 0) > 0.95


@pytest.mark.parametrize("spoil, message", [
    (lambda folder: (folder / "results.npz").write_bytes(b"no archive"), "holds no partial spine"),
    (lambda folder: (folder / "results.json").write_text("{}"), "lacks the transform 'transforms'"),
    (lambda folder: (folder / "results.json").write_text("{"), "cannot be read"),
    (lambda folder: (folder / "acquisition" / "truth" / "transforms.yaml").unlink(), "only a simulated acquisition"),
])
def test_a_folder_that_is_no_acquisition_is_refused(recorded, tmp_path, spoil, message):
    folder = tmp_path / "copy"
    shutil.copytree(recorded, folder)
    spoil(folder)
    with pytest.raises(UsxError, match=message):
        acquisition_case(CaseName("acquisition", 0), folder)


@pytest.mark.parametrize("options, message", [
    (["--jobs", "0"], "--jobs 0 must be within"),
    (["--datasets", "everything"], "dataset 'everything' is unknown"),
    (["--datasets", "meshes"], "dataset meshes needs --meshes DIR"),
    (["--methods", "best"], "method 'best' is unknown"),
    (["--methods", "usx"], "there is no method to evaluate"),
    (["--methods", "mean", "--reference", "SSM"], "--reference SSM is not among"),
    (["--meshes", "/nowhere"], "/nowhere does not exist"),
    (["--settings", "/nowhere.yaml"], "/nowhere.yaml cannot be read"),
    (["--acquisition", "/nowhere"], "/nowhere/results.npz holds no partial spine"),
    (["--shape-model", "/nowhere.safetensors", "--datasets", "synthetic-paper"], "/nowhere.safetensors"),
])
def test_bad_options_are_refused_in_one_line(tmp_path, capsys, without_weights, options, message):
    assert main(["--out", str(tmp_path / "out"), "--quiet", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
