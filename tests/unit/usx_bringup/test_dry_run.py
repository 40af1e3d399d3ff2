"""The chain without nodes: what it makes of a spine lies on that spine, and is always the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from usx_bringup import make_acquired_pool
from usx_bringup.dry_run import Examined, examine
from usx_bringup.make_acquired_pool import AcquiredMaker, acquired_recipe, main
from usx_common.errors import UsxError
from usx_common.levels import LEVELS, SOURCE_ULTRASOUND, SOURCE_XRAY, label_of_level
from usx_common.meshes import Mesh
from usx_completion.shape_model import PACKAGED_REAL, load_shape_model
from usx_completion.surface_distance import nearest_faces
from usx_phantom.acquisition import AcquisitionSettings
from usx_phantom.dicom_common import CannotWrite
from usx_phantom.spine import sample_spine
from usx_phantom.sweep import SweepSettings
from usx_phantom.trouble import Trouble

SHORT = AcquisitionSettings(seed=4, sweep=SweepSettings(duration=8.0, frame_rate=6.0))


@pytest.fixture(scope="module")
def meshes() -> dict[str, Mesh]:
    return dict(sample_spine(4).meshes)


@pytest.fixture(scope="module")
def found(meshes) -> Examined:
    return examine(meshes, SHORT)


@pytest.fixture(scope="module")
def with_cbct(meshes) -> Examined:
    return examine(meshes, SHORT, with_cbct=True)


@pytest.mark.parametrize("kind", ["found", "with_cbct"])
def test_ultrasound_lies_on_the_bone_of_its_level(meshes, kind, request):
    found = request.getfixturevalue(kind)
    partial = found.partial
    for level in LEVELS:
        mine = (partial.sources == SOURCE_ULTRASOUND) & (partial.labels == label_of_level(level))
        distance, _ = nearest_faces(partial.points[mine], meshes[level].transformed(found.cbct_to_spine))
        assert mine.sum() > 200 and np.median(distance) < 0.8, level


def test_every_body_of_the_xray_lies_within_its_vertebra_seen_from_the_side(meshes, found):
    partial = found.partial
    for level in LEVELS:
        body = partial.points[(partial.sources == SOURCE_XRAY) & (partial.labels == label_of_level(level))][:, 1:]
        bone = meshes[level].transformed(found.cbct_to_spine).vertices[:, 1:]
        inside = ((body > bone.min(axis=0) - 2.0) & (body < bone.max(axis=0) + 2.0)).all(axis=1)
        assert len(body) > 300 and inside.mean() > 0.98, level


def test_the_bone_of_a_cbct_puts_the_xray_nearly_where_the_true_surfaces_do(found, with_cbct):
    moved = with_cbct.cbct_to_spine @ np.linalg.inv(found.cbct_to_spine)
    bodies = found.partial.points[found.partial.sources == SOURCE_XRAY]
    apart = np.linalg.norm(bodies @ moved[:3, :3].T + moved[:3, 3] - bodies, axis=1)
    assert 0.0 < apart.mean() < 1.5  # another input, the same place but for the registration's error


def test_the_same_acquisition_is_the_same_and_fewer_frames_are_less(meshes, found):
    again = examine(meshes, SHORT)
    assert np.array_equal(again.partial.points, found.partial.points)
    assert np.array_equal(again.cbct_to_spine, found.cbct_to_spine)
    fewer = examine(meshes, SHORT, stride=2).partial
    seen = [int((partial.sources == SOURCE_ULTRASOUND).sum()) for partial in (found.partial, fewer)]
    assert 0.35 * seen[0] < seen[1] < 0.75 * seen[0]


def test_what_the_registration_refuses_is_no_examination(meshes):
    barely = replace(SHORT, sweep=SweepSettings(duration=8.0, frame_rate=1.0))
    with pytest.raises(UsxError, match=r"the registration was refused: .*points"):
        examine(meshes, barely, stride=4)


def test_an_example_has_the_truth_where_it_was_seen_and_another_sweep_every_round(monkeypatch):
    seen = []

    def remembered(meshes, settings, stride):
        seen.append((settings.seed, settings.sweep.pattern, stride))
        return examine(meshes, replace(settings, sweep=SHORT.sweep))

    monkeypatch.setattr(make_acquired_pool, "examine", remembered)
    model, _ = load_shape_model(PACKAGED_REAL)
    maker = AcquiredMaker(model, acquired_recipe().identity(1900))
    example, _ = maker.example(3), maker.example(4)
    assert seen == [(1_900_000_003, "midline", 3), (1_900_000_004, "paramedian", 3)]
    everything = example.vertices.reshape(-1, 3)
    near = np.linalg.norm(example.scene.points[::40, None] - everything[None], axis=2).min(axis=1)
    assert np.median(near) < 1.5 and example.scene.shown.all() and np.abs(example.displaced).max() < 6.0


@pytest.mark.parametrize(("options", "says"), [
    (["--spines", "0"], "--spines 0 must be within 1 .. 1000000"),
    (["--seed", "0"], "--seed 0 must be within 1 .. 1998")])
def test_bad_options_end_with_one_line(tmp_path, capsys, options, says):
    assert main(["--out", str(tmp_path), *options]) == 2
    assert capsys.readouterr().err == f"make_acquired_pool: {says}\n"


@pytest.mark.parametrize(("settings", "stride", "says"), [
    (SHORT, 0, "stride 0 must be within 1 .. 48"), (SHORT, 49, "stride 49 must be within 1 .. 48"),
    (replace(SHORT, trouble=Trouble(drop=0.1)), 1, "trouble happens to bags")])
def test_settings_that_make_no_sense_are_refused(meshes, settings, stride, says):
    with pytest.raises(UsxError, match=says):
        examine(meshes, settings, stride)
    with pytest.raises(UsxError, match="meshes L1, L2: they must be L1, L2, L3, L4, L5"):
        examine({level: meshes[level] for level in ("L1", "L2")}, SHORT)


def test_a_full_disk_is_no_matter_of_the_spine(meshes, monkeypatch):
    def full(radiograph, path):
        raise CannotWrite("no space left on device")

    monkeypatch.setattr("usx_bringup.dry_run.dicom_xray.write", full)
    with pytest.raises(OSError, match="no space left"):
        examine(meshes, SHORT)
