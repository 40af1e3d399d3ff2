"""Registrations kept on disk, the robust rule, and the command that builds a model from meshes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from usx_common.errors import UsxError
from usx_common.meshes import Mesh, write_mesh
from usx_completion import build_from_meshes, build_shape_model, mesh_build, registration_cache
from usx_completion.mesh_build import BuildSettings, register_subjects
from usx_completion.mesh_subjects import Subject
from usx_completion.registration_cache import RegistrationTask, register_all

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture
def shortcut(monkeypatch):
    """Registration by identity: the meshes have the template's vertices already. Counts the calls."""
    calls = []

    def register(template, target):
        calls.append(len(target.vertices))
        return target.vertices

    monkeypatch.setattr(registration_cache, "register", register)
    return calls


def person(shape_model, seed, people=1, size=0.5):
    random = np.random.default_rng(seed)
    meshes = {level: shape_model.instance(level, size * random.normal(size=10)) for level in ("L2", "L3")}
    meshes["L3"] = Mesh(meshes["L3"].vertices - [0.0, 0.0, 35.0], meshes["L3"].faces)
    return Subject(f"person{seed}", meshes, people)


def test_what_is_on_disk_is_not_registered_again_and_a_damaged_file_is(shape_model, tmp_path, shortcut):
    mean = shape_model.mean_mesh("L2")
    tasks = [RegistrationTask(mean, mean), RegistrationTask(mean, shape_model.mean_mesh("L3"))]
    first = register_all(tasks, tmp_path / "cache")
    again = register_all(tasks, tmp_path / "cache")
    assert len(shortcut) == 2
    np.testing.assert_array_equal(first, again)
    (tmp_path / "cache" / f"{tasks[0].key}.npy").write_bytes(b"\x93NUMPY")
    np.testing.assert_array_equal(register_all(tasks, tmp_path / "cache")[0], first[0])
    assert len(shortcut) == 3


def test_the_key_depends_on_both_meshes(shape_model):
    one, other = shape_model.mean_mesh("L2"), shape_model.mean_mesh("L3")
    assert len({RegistrationTask(a, b).key for a in (one, other) for b in (one, other)}) == 4


def test_a_cache_that_cannot_be_made_is_told(shape_model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsxError, match="--cache"):
        register_all([], tmp_path / "file" / "cache")


def test_people_count_by_weight_with_their_mirror_images(shape_model, tmp_path, shortcut):
    subjects = [person(shape_model, seed) for seed in range(4)] + [person(shape_model, 9, people=87)]
    found = register_subjects(subjects, shape_model, BuildSettings(cache=tmp_path, outlier=np.inf))
    people = found.people
    assert len(people.levels) == 20 and (people.copies == 1).sum() == 10
    many = people.subjects == 4
    np.testing.assert_array_equal(people.mode_weights[many], 0.0)
    np.testing.assert_array_equal(people.mean_weights[many], 10.0)  # 20 at most, halved for the mirrored copy
    np.testing.assert_array_equal(people.mean_weights[~many], 0.5)


def test_a_vertebra_unlike_all_others_is_left_out(shape_model, tmp_path, shortcut):
    subjects = [person(shape_model, seed) for seed in range(8)]
    crushed = subjects[3].meshes["L3"]
    subjects[3].meshes["L3"] = Mesh(crushed.vertices * [1.0, 1.0, 0.5], crushed.faces)
    found = register_subjects(subjects, shape_model, BuildSettings(cache=tmp_path, mirror=False))
    assert [name for name, _ in found.dropped] == ["person3/L3"]
    assert "person3/L3" not in found.names and len(found.names) == len(found.targets) == 15


def test_a_large_person_is_not_left_out_for_size(shape_model, tmp_path, shortcut):
    subjects = [person(shape_model, seed) for seed in range(8)]
    for level, mesh in subjects[3].meshes.items():
        subjects[3].meshes[level] = Mesh(mesh.vertices * 1.2, mesh.faces)
    settings = BuildSettings(cache=tmp_path, mirror=False)
    assert register_subjects(subjects, shape_model, settings).dropped == []


def test_generated_spines_add_modes_but_count_in_no_mean(shape_model, tmp_path, shortcut, monkeypatch):
    monkeypatch.setattr(mesh_build, "_generated", lambda count: [person(shape_model, 50 + n) for n in range(count)])
    subjects = [person(shape_model, seed) for seed in range(3)]
    people = register_subjects(subjects, shape_model, BuildSettings(cache=tmp_path, outlier=np.inf), 2).people
    assert (people.groups == 1).sum() == 4
    np.testing.assert_array_equal(people.mode_weights[people.groups == 1], 0.25)


def test_too_few_people_are_refused(shape_model, tmp_path):
    subjects = [person(shape_model, 0), person(shape_model, 1), person(shape_model, 2, people=50)]
    with pytest.raises(UsxError, match="three people"):
        register_subjects(subjects, shape_model, BuildSettings(cache=tmp_path))


@pytest.mark.parametrize("arguments, words", [
    (["--meshes", "x"], "--out"), (["--meshes", "x", "--out", "y", "--axes", "LAS"], "axes"),
    (["--augment-parametric", "-1"], "augment-parametric"), (["--largest-mean", "0"], "largest-mean"),
])
def test_absurd_arguments_are_refused(arguments, words, capsys):
    with pytest.raises(SystemExit) as exit_:
        build_shape_model.parse_arguments(arguments)
    assert exit_.value.code == 2
    assert words in capsys.readouterr().err


def test_people_kept_for_tests_throughout_the_project_are_not_learned_from_unless_told_so():
    found = ["anna", "sub-verse008", "verse009"]
    names = build_from_meshes.tested_names
    assert names(found, None, Path()) == ["sub-verse008", "verse009"]
    assert names(found, [], Path()) == []
    assert names(found, ["verse008", "anna"], Path()) == ["sub-verse008", "anna"]
    assert names(["anna"], None, Path()) == []
    assert build_shape_model.parse_arguments(["--meshes", "x", "--out", "y"]).test is None
    assert build_shape_model.parse_arguments(["--meshes", "x", "--out", "y", "--test"]).test == []


def test_models_and_their_licences_are_installed():
    root = Path(build_shape_model.__file__).parents[1]
    given = {}
    code = (root / "setup.py").read_text().replace("from setuptools import find_packages, setup", "")
    exec(code, {"setup": given.update, "find_packages": lambda include: []})  # setup(...) only keeps its arguments
    package = root / "usx_completion"
    names = {path.name for pattern in given["package_data"]["usx_completion"] for path in package.glob(pattern)}
    assert {"LICENCES.txt", "lumbar_shape_model.safetensors", "lumbar_shape_model_real.safetensors"} <= names


@pytest.mark.parametrize("more, words", [
    (["--exclude", "carl"], "no carl to exclude"), (["--test", "carl"], "no carl to test on"),
    ([], "three people"), (["--outlier", "0"], "must be above 0"),
])
def test_the_command_tells_what_is_wrong_in_one_line(shape_model, tmp_path, capsys, more, words):
    (tmp_path / "meshes" / "anna").mkdir(parents=True)
    write_mesh(tmp_path / "meshes" / "anna" / "L3.ply", shape_model.mean_mesh("L3").transformed(RAS))
    code = build_shape_model.main(["--meshes", str(tmp_path / "meshes"), "--out", str(tmp_path / "m"),
                                   "--cache", str(tmp_path / "cache"), *more])
    error = capsys.readouterr().err.strip()
    assert code == 2 and words in error and "\n" not in error
    assert not (tmp_path / "m").exists()
