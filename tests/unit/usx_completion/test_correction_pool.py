"""The pool of training examples on disk: what its files hold, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from usx_common.errors import UsxError
from usx_completion.correction import pool
from usx_completion.correction.examples import Example
from usx_completion.correction.make_pool import main as make_pool
from usx_completion.correction.pool_identity import BadPool
from usx_completion.correction.scene import Scene
from usx_completion.shape_model import PACKAGED_REAL, load_shape_model


def test_a_pool_there_and_back(tmp_path, maker, examples):
    whole = pool.preset_recipe().identity(1900)
    pool._makers[whole] = maker
    assert pool._write(pool.Part(tmp_path, replace(whole, count=2))) == (2, 0)
    for written, read in zip(examples, pool.read_pool(tmp_path), strict=True):
        for name in ("points", "labels", "outlines", "shown", "plane", "poses", "placed"):
            assert np.array_equal(getattr(written.scene, name), getattr(read.scene, name)), name
        assert np.array_equal(written.vertices, read.vertices) and np.array_equal(written.displaced, read.displaced)
    assert len(list(pool.read_pool(tmp_path, 1))) == 1
    with pytest.raises(UsxError, match="make_pool"):
        list(pool.read_pool(tmp_path / "none"))


@pytest.fixture
def pooled(tmp_path, monkeypatch, examples):
    """Two files of one example each, whose people were made at once."""
    whole = pool.preset_recipe().identity(7)
    monkeypatch.setattr(pool, "_makers", {whole: SimpleNamespace(example=lambda number: examples[0])})
    folder = tmp_path / "val"
    folder.mkdir()
    for first in (0, 1):
        pool._write(pool.Part(folder, replace(whole, first=first, count=1)))
    return folder


def test_arrays_of_a_pool_are_the_examples_and_nothing_but_an_identity_is_added(pooled, examples):
    with np.load(pooled / "examples_000000.npz") as data:
        arrays = dict(data)
    told = json.loads(str(arrays.pop("identity")))
    assert len(told.pop("made_from")) == 64
    assert told == {"seed": 7, "first": 0, "count": 1, "presets": ["paper", "realistic"],
                    "sources": ["real", "real", "real", "model"],
                    "shape_model": load_shape_model(PACKAGED_REAL)[1]["sha256"], "format": "usx example pool 3"}
    scene = examples[0].scene
    expected = {"lengths": np.array([len(scene.points)]), "points": scene.points, "labels": scene.labels,
                **{name: getattr(scene, name)[None] for name in ("outlines", "outline_normals", "shown", "plane",
                                                                 "poses", "placed")},
                **{name: getattr(examples[0], name)[None] for name in ("vertices", "blind_poses", "displaced")}}
    assert list(arrays) == list(expected)
    for name, value in expected.items():
        assert arrays[name].dtype == value.dtype and np.array_equal(arrays[name], value), name


def test_a_file_without_examples_is_written_and_read(pooled):
    def fails(number):
        raise UsxError("too little was seen")

    whole = pool.preset_recipe().identity(7)
    pool._makers[whole] = SimpleNamespace(example=fails)
    empty = pool.Part(pooled, replace(whole, first=2, count=3))
    assert pool._write(empty) == (0, 3) and pool.read_file(empty.path) == []
    assert len(list(pool.read_pool(pooled))) == 2
    for first in (0, 1):
        pool._write(pool.Part(pooled, replace(whole, first=first, count=1)))
    with pytest.raises(BadPool, match="holds no example: in all 3 files"):
        list(pool.read_pool(pooled))


def _other(path, **values):
    with np.load(path) as data:
        arrays = dict(data)
    told = json.loads(str(arrays["identity"]))
    np.savez(path, **{**arrays, "identity": np.array(json.dumps({**told, **values}))})


@pytest.mark.parametrize(("value", "says"), [
    ({"seed": 8}, "made with seed 8, not 7"), ({"shape_model": "ab"}, "made with shape model ab, not fd7e"),
    ({"presets": ["paper"]}, "made with presets paper, not paper, realistic"),
    ({"sources": ["model"]}, "made with sources model, not real, real, real, model"),
    ({"made_from": "1f"}, "made with made from 1f, not"),
    ({"format": "pool 0"}, "made with format pool 0, not usx")])
def test_pools_of_another_kind_are_neither_mixed_nor_gone_on_with(pooled, value, says):
    _other(pooled / "examples_000001.npz", **value)
    with pytest.raises(BadPool, match=rf"examples_000001.npz was {says}"):
        list(pool.read_pool(pooled))
    with pytest.raises(BadPool, match=rf"examples_000001.npz was {says}"):
        next(pool.write_pool(pooled, 1, 7))


def test_a_pool_of_another_seed_or_size_is_not_gone_on_with(tmp_path, pooled, capsys):
    (pooled / "examples_000001.npz").unlink()
    assert make_pool(["--out", str(tmp_path), "--seed", "7", "--validation", "1"]) == 2
    error = capsys.readouterr().err
    assert "val/examples_000000.npz was made with seed 7, not 8" in error and error.count("\n") == 1
    assert make_pool(["--out", str(tmp_path), "--seed", "6", "--validation", "2"]) == 2
    error = capsys.readouterr().err
    assert "was made with count 1, not 2" in error and error.count("\n") == 1


def _without(name):
    def change(path):
        with np.load(path) as data:
            arrays = {key: value for key, value in data.items() if key != name}
        np.savez(path, **arrays)
    return change


def _flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _cut_short(array):
    def change(path):
        with np.load(path) as data:
            np.savez(path, **{**data, array: data[array][:-1]})
    return change


@pytest.mark.parametrize(("harm", "says"), [
    (lambda path: path.write_bytes(path.read_bytes()[:-500]), "is damaged"),
    (lambda path: path.write_bytes(b""), "is damaged"), (lambda path: path.write_text("nothing"), "is damaged"),
    (_flipped, "is damaged: Bad CRC"), (_without("identity"), "does not say what it was made from"),
    (_without("lengths"), "is damaged"), (_without("plane"), "lacks plane"),
    (_cut_short("points"), "points has shape"), (_cut_short("vertices"), "vertices has shape"),
    (lambda path: _other(path, seed=[]), "made with seed"),
    (lambda path: np.savez(path, identity=np.array("{"), lengths=np.zeros(0)), "identity cannot be read")])
def test_damaged_files_of_a_pool_are_named(pooled, harm, says):
    harm(pooled / "examples_000001.npz")
    with pytest.raises(BadPool, match=rf"examples_000001.npz.* {says}") as refusal:
        list(pool.read_pool(pooled))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("options", "says"), [
    (["--seed", "1899"], "the next, which is for validation, is of 1900 .. 1999, the seeds kept for tests"),
    (["--spines", "0"], "--spines 0 must be within 1"), (["--jobs", "0"], "--jobs 0")])
def test_bad_options_of_make_pool_end_with_one_line(tmp_path, capsys, options, says):
    assert make_pool(["--out", str(tmp_path / "pool"), *options]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not (tmp_path / "pool").exists()


def alike(model, identity):
    """A maker that other processes can open: examples as small as can be, of which every third gives none."""
    def example(number):
        if number % 3 == 2:
            raise UsxError("the chain refused it")
        random = np.random.default_rng([identity.seed, number])
        points, outlines = random.random((4, 3)).astype(np.float32), np.zeros((2, 5, 72, 2), np.float32)
        scene = Scene(points, np.zeros(4, np.int8), *outlines, np.ones(5, bool), np.zeros((4, 3), np.float32),
                      np.zeros((5, 4, 4)), np.ones(5, bool))
        return Example(scene, np.zeros((5, 2, 3), np.float32), np.zeros((5, 4, 4)), np.zeros((5, 2), np.float32))

    return SimpleNamespace(example=example)


def broken(model, identity):
    def example(number):
        raise ZeroDivisionError("chain")

    return SimpleNamespace(example=example)


def test_any_number_of_processes_writes_the_same_by_any_recipe(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "PER_FILE", 4)
    recipe = pool.Recipe(("alike",), pool.SOURCES, ("what it holds",), alike)
    made = {jobs: list(pool.write_pool(tmp_path / str(jobs), 10, 5, jobs, recipe)) for jobs in (1, 2)}
    assert made[1] == made[2] == [(3, 1), (3, 1), (1, 1)]
    for path in sorted((tmp_path / "1").iterdir()):
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()
    assert pool.identity_of(tmp_path / "1") == recipe.identity(5)
    assert list(pool.write_pool(tmp_path / "1", 10, 5, 1, recipe)) == made[1]  # all of it is there
    with pytest.raises(BadPool, match="was made with presets alike, not paper, realistic"):
        next(pool.write_pool(tmp_path / "1", 10, 5))


def test_what_ends_a_maker_is_told_with_the_example(tmp_path):
    recipe = pool.Recipe(("broken",), ("real",), (), broken)
    with pytest.raises(BadPool, match=r"example 0, of .*examples_000000.npz, ended in ZeroDivisionError\('chain'\)"):
        list(pool.write_pool(tmp_path, 2, 5, 1, recipe))
