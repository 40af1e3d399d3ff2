"""Patients who move between sweep and X-ray: by every amount, with skin and CT, and what bones hinder is told."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import yaml
from scipy import ndimage

from usx_common.volumes import Volume, VolumeGrid
from usx_phantom import make_phantom, phantom_source, xray
from usx_phantom.make_phantom import main
from usx_phantom.patient_motion import PatientMotion, draw_motion, drawn_change, moved_scene, warped
from usx_phantom.phantom_scene import build_scene
from usx_phantom.posture import PostureChange
from usx_phantom.spine import mean_spine
from usx_phantom.spine_chain import SpineChain
from usx_phantom.trouble import Trouble
from usx_phantom.xray_settings import XraySettings


@pytest.fixture(scope="module")
def spine():
    return mean_spine(spacing=2.4)


def test_a_ct_moves_with_its_bones(spine):
    """Bones painted by level come out where the moved label map says, and far from them nothing tears."""
    scene = build_scene(spine.meshes, 0, spacing=2.0)
    difference = SpineChain(spine.meshes).bend(PostureChange(flexion=24.0))
    grid = scene.labelmap.grid
    painted = Volume((scene.labelmap.values.astype(np.int16) * 10), VolumeGrid(grid.origin, grid.spacing, grid.size))
    motion = PatientMotion(difference, np.array([31.4, -20.0, 7.7]))
    moved = moved_scene(replace(scene, intensities=painted), PatientMotion(difference, np.zeros(3)))
    image = moved.intensities
    shifted = moved_scene(replace(scene, intensities=painted), motion)
    for part in ("labelmap", "intensities"):
        still, away = getattr(moved, part), getattr(shifted, part)
        assert np.array_equal(still.values, away.values)
        assert np.allclose(away.grid.origin - still.grid.origin, motion.shift)
    z, y, x = np.nonzero(ndimage.binary_erosion(moved.labelmap.values))  # borders are half one, half the other
    index = np.rint((np.stack([x, y, z], -1) * 2.0 + moved.labelmap.grid.origin - grid.origin) / 2.0).astype(int)
    keep = ((index >= 0) & (index < np.array(grid.size))).all(1)
    found = image.values[tuple(index[keep].T[::-1])]
    expected = moved.labelmap.values[z, y, x][keep] * 10
    still = painted.values[tuple(index[keep].T[::-1])]
    wrong, wrong_still = (np.mean(np.abs(values - expected) > 120) for values in (found, still))
    assert wrong < 0.005 and wrong_still > 0.05, (wrong, wrong_still)
    nothing = SpineChain(spine.meshes).bend(PostureChange())
    assert np.array_equal(warped(painted, scene.labelmap, nothing).values, painted.values)


def test_every_seed_can_move_by_every_amount():
    for degrees in (0.0, 0.5, 4.0, 15.0, 30.0):
        for seed in range(300):
            change = drawn_change(np.random.default_rng(seed), degrees)
            turn = change.disc_angles().sum(0)
            assert np.linalg.norm(turn) == pytest.approx(degrees, abs=1e-9)
            assert np.abs(change.wedging).max() <= min(0.1 * degrees, 0.6) * 3.75 + 1e-9
    ways = np.array([drawn_change(np.random.default_rng(seed), 1.0).disc_angles().sum(0) for seed in range(300)])
    assert (np.abs(ways.mean(0)) < 0.1).all() and (ways.std(0) > (0.6, 0.4, 0.1)).all()
    assert np.abs(ways[:, 2]).max() < 0.5


def test_the_body_moves_with_its_bones(spine):
    scene = build_scene(spine.meshes, 0, spacing=4.0)
    bones = np.concatenate([mesh.vertices for mesh in scene.meshes.values()])
    for seed in range(6):
        motion = draw_motion(scene, Trouble(motion_shift=60.0), seed)
        moved = moved_scene(scene, motion)
        assert np.linalg.norm(motion.shift) == pytest.approx(60.0)
        after = np.concatenate([mesh.vertices for mesh in moved.meshes.values()])
        assert np.allclose(after, bones + motion.shift, atol=1e-9) and moved.skin.inside(after).all()
        depth = scene.skin.height(bones[:, 0], bones[:, 2]) - bones[:, 1]
        assert np.allclose(moved.skin.height(after[:, 0], after[:, 2]) - after[:, 1], depth)
    bent = moved_scene(scene, draw_motion(scene, Trouble(motion=30.0, motion_shift=60.0), 7))
    assert bent.skin.inside(np.concatenate([mesh.vertices for mesh in bent.meshes.values()])).all()


def test_what_a_motion_could_not_do_is_told(spine, tmp_path, capsys, monkeypatch):
    """Seed 0 bends backwards: printed and stored, beside what the posture could not do."""
    coarse = XraySettings(columns=256, rows=320, spacing=1.2)
    monkeypatch.setattr(phantom_source, "sample_spine", lambda seed: spine)
    monkeypatch.setattr(make_phantom, "build_scene", partial(build_scene, spacing=2.0))
    monkeypatch.setattr(xray, "simulate_lateral", partial(xray.simulate_lateral, settings=coarse))
    out = tmp_path / "stiff"
    assert main(["--seed", "0", "--frames", "2", "--duration", "2", "--no-cbct", "--quiet", "--out", str(out),
                 "--posture", "flexion=-30", "--trouble", "motion=30"]) == 0
    notes = yaml.safe_load((out / "acquisition.yaml").read_text())["notes"]
    assert [note.split(":")[0] for note in notes] == ["posture", "motion before the X-ray"]
    assert all("discs turned less than wanted" in note for note in notes)
    printed = " ".join(capsys.readouterr().out.split())
    assert all(note in printed for note in notes)
