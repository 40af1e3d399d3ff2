from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from usx_common.levels import LEVELS
from usx_common.meshes import volume
from usx_completion import shape_model as module
from usx_completion.shape_model import PACKAGED, BadModel, load_shape_model, save_shape_model

METADATA = {"seeds": "10000..10001", "count": "2", "generator_version": "test"}


def test_the_packaged_model_is_watertight_small_and_built_from_other_seeds_than_the_demo(shape_model):
    _, metadata = load_shape_model()
    assert PACKAGED.stat().st_size < 3e6
    assert int(metadata["seeds"].split("..")[0]) >= 1000
    for level in LEVELS:
        mesh = shape_model.mean_mesh(level)
        assert mesh.is_watertight
        assert 25_000 < volume(mesh) < 120_000
        spinous, body = mesh.vertices[:, 1].max(), mesh.vertices[shape_model.body]
        assert spinous > 30.0  # posterior is +y
        assert np.linalg.norm(body.mean(axis=0)) < 1.0  # the origin is the body's centroid


def test_levels_follow_each_other_downwards(shape_model):
    assert (shape_model.step_mean[:, 5] < -20.0).all() and (shape_model.step_mean[:, 5] > -50.0).all()


def test_modes_stay_watertight_at_three_standard_deviations(shape_model):
    for sign in (-3.0, 3.0):
        assert shape_model.instance("L4", np.full(3, sign)).is_watertight


def test_a_written_model_reads_back(shape_model, tmp_path):
    save_shape_model(tmp_path / "m.safetensors", shape_model, METADATA)
    again, metadata = load_shape_model(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.means, shape_model.means)
    np.testing.assert_array_equal(again.faces, shape_model.faces)
    assert metadata["count"] == "2"


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-500])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(bytes(data))


def _garbage(path):
    path.write_bytes(b"not a model at all" * 100)


def _empty(path):
    path.write_bytes(b"")


def _foreign(path):
    save_file({"weight": np.zeros((3, 3), np.float32)}, path, metadata={"format": "pt"})


def _no_metadata(path):
    save_file({"weight": np.zeros((3, 3), np.float32)}, path)


def _missing(path):
    path.unlink()


def _rewritten(change):
    def damage(path):
        model, metadata = load_shape_model(path)
        arrays = {name: np.ascontiguousarray(getattr(model, name), dtype=kind)
                  for name, kind in module._STORED.items()}
        change(arrays)
        save_file(arrays, path, metadata={**metadata, "sha256": module.content_hash(arrays, metadata["spread"])})
    return damage


def _wrong_shape(arrays):
    arrays["means"] = arrays["means"][:4].copy()


def _not_finite(arrays):
    arrays["mode_sd"] = np.full_like(arrays["mode_sd"], np.nan)


def _bad_faces(arrays):
    arrays["faces"] = np.full_like(arrays["faces"], 60_000)


@pytest.mark.parametrize("damage, words", [
    (_truncate, "cannot be read"), (_flip, "corrupt|cannot be read"), (_garbage, "cannot be read"),
    (_empty, "cannot be read"), (_foreign, "not a usx shape model"), (_no_metadata, "not a usx shape model"),
    (_missing, "does not exist"), (_rewritten(_wrong_shape), "has shape"), (_rewritten(_not_finite), "not finite"),
    (_rewritten(_bad_faces), "faces"),
])
def test_weights_that_are_corrupt_or_foreign_are_refused(shape_model, tmp_path, damage, words):
    path = tmp_path / "model.safetensors"
    save_shape_model(path, shape_model, METADATA)
    damage(path)
    with pytest.raises(BadModel, match=words):
        load_shape_model(path)


def test_the_hash_depends_on_names_shapes_and_values():
    a = {"x": np.arange(6.0)}
    hashes = {module.content_hash(a), module.content_hash({"y": a["x"]}), module.content_hash({"x": a["x"] + 1}),
              module.content_hash({"x": a["x"].reshape(2, 3)}), module.content_hash(a, "spread")}
    assert len(hashes) == 5
    assert json.dumps(sorted(hashes))


def test_metadata_are_required(shape_model, tmp_path):
    with pytest.raises(ValueError, match="seeds"):
        save_shape_model(tmp_path / "m.safetensors", replace(shape_model), {"count": "1", "generator_version": "x"})
