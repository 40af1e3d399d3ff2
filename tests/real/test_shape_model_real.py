"""Shape models of real people: a small one built by the command, and the one that is packaged."""

from __future__ import annotations

import csv
import functools

import numpy as np
import pytest

from usx_completion import build_shape_model, mesh_model_pictures, mesh_model_quality
from usx_completion.shape_model import PACKAGED_REAL, load_shape_model
from usx_completion.spine_sampler import make_sampler
from usx_completion.spread_calibration import sampled_amplitude

SUBJECTS = ("verse016", "verse018", "verse030")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Model and report of three people who give L1 only."""
    import os
    from pathlib import Path

    data = os.environ.get("USX_DATA", "")
    if not data or not (Path(data) / "shapes").is_dir():
        pytest.skip("USX_DATA names no folder of real data")
    folder = tmp_path_factory.mktemp("real")
    (folder / "meshes").mkdir()
    for name in SUBJECTS:
        (folder / "meshes" / name).symlink_to(Path(data) / "shapes" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh_model_quality, "CHECKED_SPINES", 30)
        patch.setattr(mesh_model_quality, "JOINED_SPINES", 4)
        patch.setattr(mesh_model_pictures, "spines", functools.partial(mesh_model_pictures.spines, count=1))
        code = build_shape_model.main([
            "--meshes", str(folder / "meshes"), "--no-mirror", "--test", "--cache",
            str(folder / "cache"), "--jobs", "1",
            "--out", str(folder / "model.safetensors"), "--report", str(folder / "report")])
    assert code == 0
    return folder


def table(folder, name):
    with (folder / "report" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.real_data
def test_templates_lie_on_the_meshes_they_were_bent_onto(built):
    rows = table(built, "registration")[:-1]
    assert {row["mesh"] for row in rows} == {f"{name}/L1" for name in SUBJECTS}
    for row in rows:
        assert float(row["mean"]) < 0.12 and float(row["flipped_share"]) < 0.02
    agreement = {row["landmark"]: float(row["median"]) for row in table(built, "landmarks")}
    assert agreement["left transverse tip"] < 2.0 and agreement["all"] < 2.5


@pytest.mark.real_data
def test_sampled_shapes_spread_as_the_people_left_out(built):
    first = table(built, "spread")[0]
    assert first["level"] == "L1"
    assert float(first["to_mean_ratio"]) == pytest.approx(1.0, abs=0.2)
    assert float(first["left_over_ratio"]) == pytest.approx(1.0, abs=0.2)
    assert {path.name for path in (built / "report").glob("*.png")} == {
        f"shape-model-{name}.png" for name in ("overlay", "samples", "spines", "curves")}
    assert load_shape_model(built / "model.safetensors")[1]["count"] == "3"


def test_the_packaged_model_of_real_people_knows_nobody_kept_for_tests_and_spreads_as_people():
    model, metadata = load_shape_model(PACKAGED_REAL)
    assert PACKAGED_REAL.stat().st_size < 2e6
    assert not {"verse008", "verse009"} & set(metadata["subjects"].split())
    assert {"verse008", "verse009"} <= set(metadata["left_out"].split())
    assert "CC BY-SA 4.0" in metadata["licence"] and "MIT" in metadata["licence"]
    found = sampled_amplitude(make_sampler(model), 15, seed=3)
    np.testing.assert_allclose(found.to_mean_mm, model.spread.to_mean_mm, rtol=0.2)
    np.testing.assert_allclose(found.left_over_mm, model.spread.left_over_mm, rtol=0.2)
