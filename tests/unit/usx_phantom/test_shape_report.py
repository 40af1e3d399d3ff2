"""shape_report: columns and rules of its files on a few spines, statistics against known shapes, bad options."""

import contextlib
import csv
import io

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, write_mesh
from usx_phantom import shape_report, shape_report_pictures
from usx_phantom.published_morphometry import published
from usx_phantom.shape_statistics import Row, ShapeRow, distance_to_mean, genus, mean_sample, shape_grid
from usx_phantom.template import template_mesh


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Folder and terminal text of a run on three spines, without real data and with one picture."""
    out = tmp_path_factory.mktemp("report")
    patch = pytest.MonkeyPatch()
    patch.delenv("USX_DATA", raising=False)
    patch.setattr(shape_report_pictures, "REAL", (("verse008", "L3"),))
    patch.setattr(shape_report_pictures, "SHOWN", 1)
    write_mesh(out / "L3.ply", template_mesh("L3", 2.4))
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        code = shape_report.main(["--out", str(out), "--samples", "3", "--jobs", "1", "--quiet",
                                  "--meshes", str(out), "--axes", "LPS"])
    patch.undo()
    assert code == 0
    return out, text.getvalue()


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_morphometry_file_has_its_columns_and_its_rule(report):
    rows = rows_of(report[0] / "morphometry.csv")
    assert list(rows[0]) == ["measure", "level", "mean", "sd", "published_mean", "published_sd", "within"]
    assert {(r["measure"], r["level"]) for r in rows} == set(published())
    for r in rows:
        mean, sd, known, spread = (float(r[name]) for name in ("mean", "sd", "published_mean", "published_sd"))
        assert known == pytest.approx(published()[r["measure"], r["level"]].mean, abs=1e-3)
        within = abs(mean - known) <= spread and spread / 1.5 <= sd <= 1.5 * spread
        assert r["within"] == str(within).lower(), r
        assert abs(mean - known) < 3.0 * spread, r


def test_shapes_file_has_a_row_for_each_vertebra(report):
    rows = rows_of(report[0] / "shapes.csv")
    assert list(rows[0]) == ["level", "sample", "to_population_mean_mm", "asymmetry_mm", "watertight", "genus"]
    assert sorted((r["level"], int(r["sample"])) for r in rows) == [(x, s) for x in LEVELS for s in (1000, 1001, 1002)]
    assert all(r["watertight"] == "true" and r["genus"] == "1" for r in rows)
    assert all(0.3 < float(r["asymmetry_mm"]) < 1.4 for r in rows)
    assert all(0.2 < float(r["to_population_mean_mm"]) < 2.0 for r in rows)


def test_report_prints_narrow_tables_and_says_what_it_skips(report):
    out, text = report
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "measures are within" in text and "no comparison with the mean of 87 patients" in text
    table = (out / "table.md").read_text()
    assert "| transverse span |" in table and "| watertight, genus 1 | 3 of 3 |" in table
    for name in ("morphometry.png", "samples.png"):
        assert (out / name).stat().st_size > 5000


@pytest.mark.parametrize(("mean", "sd", "within"), [
    (20.0, 2.0, True), (22.0, 2.0, True), (22.1, 2.0, False), (18.0, 2.0, True), (20.0, 3.0, True), (20.0, 3.1, False),
    (20.0, 1.34, True), (20.0, 1.32, False)])
def test_within_means_one_sd_and_a_factor_of_one_and_a_half(mean, sd, within):
    assert Row("canal_width", "L3", mean, sd, 20.0, 2.0).within is within


@pytest.mark.parametrize(("solid", "expected"), [
    (trimesh.creation.icosphere(2, 5.0), 0), (trimesh.creation.torus(10.0, 3.0), 1)])
def test_genus_of_known_solids(solid, expected):
    assert genus(Mesh(np.asarray(solid.vertices), np.asarray(solid.faces))) == expected


def test_mean_of_copies_is_the_shape_and_no_copy_is_away_from_it():
    template = template_mesh("L2")
    rng = np.random.default_rng(4)
    turns = [Rotation.random(random_state=i).as_matrix() for i in range(3)]
    copies = [rng.uniform(0.8, 1.2) * template.vertices @ turn + rng.normal(size=3) for turn in turns]
    mean = mean_sample("L2", [copies[0], *copies[1:]])
    assert distance_to_mean(("L2", 0, copies[1], mean)) < 0.12
    bumped = copies[1] + rng.normal(0.0, 0.5, copies[1].shape)
    assert distance_to_mean(("L2", 0, bumped, mean)) > 0.2


def test_shares_of_bad_shapes_are_shown():
    shapes = [ShapeRow(level, s, 1.0, 0.6, s != 1, 1) for level in LEVELS for s in range(3)]
    assert shape_grid(shapes, {"L2": 0.4})[2][1] == "2 of 3"
    assert shape_grid(shapes, {"L2": 0.4})[3] == ["mean sample to 87", "-", "0.40", "-", "-", "-"]


@pytest.mark.parametrize(("options", "message"), [
    (["--samples", "1"], "--samples 1"), (["--jobs", "0"], "--jobs 0"), (["--seed", "-1"], "--seed -1"),
    (["--meshes", "nowhere"], "no such folder")])
def test_bad_options_end_with_one_line(tmp_path, capsys, options, message):
    assert shape_report.main(["--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_an_empty_mesh_folder_is_refused_before_the_work(tmp_path, capsys):
    assert shape_report.main(["--out", str(tmp_path / "out"), "--meshes", str(tmp_path)]) == 2
    assert "none of L1.ply to L5.ply" in capsys.readouterr().err
