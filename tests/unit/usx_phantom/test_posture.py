"""Postures: angles as asked for, rigid vertebrae, no overlap, the same for the same seed, clear refusals."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh
from usx_common.transforms import invert, is_rigid
from usx_phantom import phantom_source
from usx_phantom.body_frames import body_frames
from usx_phantom.mesh_import import read_spine
from usx_phantom.overlap import overlaps
from usx_phantom.posture import BadPosture, PostureChange, PostureSpread, random_change
from usx_phantom.spine import mean_spine
from usx_phantom.spine_chain import TOLERANCE, SpineChain, change_posture


@pytest.fixture(scope="module")
def spine():
    return mean_spine(spacing=2.4)


@pytest.fixture(scope="module")
def chain(spine):
    return SpineChain(spine.meshes)


def turn(difference, upper, lower):
    """Rotation vector (degrees) of `upper` against `lower`."""
    motion = invert(difference.motions[lower]) @ difference.motions[upper]
    return Rotation.from_matrix(motion[:3, :3]).as_rotvec(degrees=True)


@pytest.mark.parametrize(("change", "axis", "angle"), [
    (PostureChange(flexion=12.0), 0, 12.0), (PostureChange(flexion=-6.0), 0, -6.0),
    (PostureChange(bending=8.0), 1, 8.0), (PostureChange(rotation=4.0), 2, 4.0)])
def test_the_whole_turn_is_the_one_asked_for(chain, change, axis, angle):
    found = turn(chain.bend(change), "L1", "L5")
    assert found[axis] == pytest.approx(angle, abs=0.5)
    assert np.linalg.norm(found) == pytest.approx(abs(angle), abs=0.1)


def test_directions(chain, spine):
    """Forward is -y, left is +x, and a turn to the left takes the front to the left."""
    top = spine.vertebra_to_patient["L1"][:3, 3]

    def moved(change):
        difference = chain.bend(change)
        return invert(difference.motions["L5"]) @ difference.motions["L1"] @ [*top, 1.0] - [*top, 1.0]

    assert moved(PostureChange(flexion=12.0))[1] < -5.0
    assert moved(PostureChange(bending=12.0))[0] > 5.0
    front = spine.meshes["L1"].vertices[spine.meshes["L1"].vertices[:, 1].argmin()]
    turned = chain.bend(PostureChange(rotation=6.0))
    assert (invert(turned.motions["L5"]) @ turned.motions["L1"] @ [*front, 1.0])[0] > front[0] + 1.0


def test_discs_share_the_motion_as_published(chain):
    turns = np.array(list(chain.bend(PostureChange(flexion=11.4)).disc_turns().values()))
    assert np.allclose(turns, 11.4 * np.array([12, 14, 15, 16]) / 57, atol=0.02)


def test_scoliosis_is_convex_to_the_left_and_turned_that_way(chain, spine):
    difference = chain.bend(PostureChange(scoliosis=16.0))
    before = np.array([spine.vertebra_to_patient[level][:3, 3] for level in LEVELS])
    after = np.array([(difference.motions[level] @ [*p, 1.0])[:3] for level, p in zip(LEVELS, before, strict=True)])
    bow = (after - before)[:, 0]
    assert bow[2] - 0.5 * (bow[0] + bow[4]) > 3.0
    tilt = turn(difference, "L1", "L5")
    assert tilt[1] == pytest.approx(-16.0, abs=0.5)
    apex = Rotation.from_matrix(difference.motions["L3"][:3, :3]).as_rotvec(degrees=True)
    assert apex[2] > 2.0
    s_curve = chain.bend(PostureChange(scoliosis=12.0, double=True))
    assert turn(s_curve, "L1", "L3")[1] < -5.0 and turn(s_curve, "L3", "L5")[1] > 5.0


def test_wedging_bends_its_own_disc_alone(chain):
    wedging = ((0.0, 0.0), (0.0, 0.0), (4.0, 0.0), (0.0, 0.0))
    turns = chain.bend(PostureChange(wedging=wedging)).disc_turns()
    assert turns == pytest.approx({"L1-L2": 0.0, "L2-L3": 0.0, "L3-L4": 4.0, "L4-L5": 0.0}, abs=1e-4)


def test_vertebrae_stay_rigid_and_the_spine_stays_in_place(chain, spine):
    difference = chain.bend(random_change(3))
    for level, motion in difference.motions.items():
        assert is_rigid(motion)
        pose = difference.poses(spine.vertebra_to_patient)[level]
        local = difference.meshes(spine.meshes)[level].transformed(invert(pose))
        assert np.allclose(local.vertices, spine.local(level).vertices, atol=1e-9)
    centres = np.array([spine.vertebra_to_patient[level][:3, 3] for level in LEVELS])
    moved = np.array([difference.poses(spine.vertebra_to_patient)[level][:3, 3] for level in LEVELS])
    assert np.linalg.norm((moved - centres).mean(0)) < 0.5


@pytest.mark.parametrize("change", [PostureChange(flexion=-25.0), PostureChange(scoliosis=35.0),
                                    PostureChange(scoliosis=-40.0, double=True)])
def test_bones_never_overlap_and_what_was_given_up_is_told(spine, change):
    meshes, difference = change_posture(spine.meshes, change)
    assert max(overlaps(meshes).values()) <= TOLERANCE + 1e-6
    # Without giving way this posture would overlap: the test would be empty otherwise.
    assert min(difference.taken.values()) < 1.0 and "discs turned less than wanted" in difference.message
    for disc, share in difference.taken.items():
        assert (disc in difference.message) == (share < 1.0)


def test_no_change_is_no_motion(chain):
    still = chain.bend(PostureChange())
    assert all(np.allclose(motion, np.eye(4), atol=1e-9) for motion in still.motions.values())
    assert still.message == "" and max(still.overlap.values()) == 0.0


def test_random_changes_are_repeatable_and_spread_as_stated(chain):
    assert random_change(7) == random_change(7) != random_change(8)
    again = SpineChain({level: bone.mesh for level, bone in chain._bones.items()})
    first, second = chain.bend(random_change(7)), again.bend(random_change(7))
    assert all(np.array_equal(first.motions[level], second.motions[level]) for level in LEVELS)
    draws = [random_change(seed, PostureSpread(scoliosis=4.0)) for seed in range(600)]
    for name, sd in (("flexion", 5.0), ("bending", 2.5), ("rotation", 1.0), ("scoliosis", 4.0)):
        values = np.array([getattr(draw, name) for draw in draws])
        assert values.std() == pytest.approx(sd, rel=0.12) and abs(values).max() <= 2.5 * sd + 1e-9
    assert np.std([draw.wedging for draw in draws]) == pytest.approx(0.6, rel=0.05)
    assert random_change(1, PostureSpread().scaled(0.0)).disc_angles() == pytest.approx(np.zeros((4, 3)))


def test_frames_read_off_the_meshes(spine):
    """The true frames are known for a parametric spine."""
    for level, frame in body_frames(spine.meshes).items():
        off = invert(spine.vertebra_to_patient[level]) @ frame
        assert np.linalg.norm(off[:3, 3]) < 5.0
        assert Rotation.from_matrix(off[:3, :3]).magnitude() < np.radians(12.0)


def test_parts_of_a_spine_bend_too(spine):
    part = {level: spine.meshes[level] for level in ("L4", "L5")}
    _, difference = change_posture(part, PostureChange(flexion=11.4))
    assert list(difference.motions) == ["L4", "L5"]
    assert difference.disc_turns()["L4-L5"] == pytest.approx(11.4 * 16 / 57, abs=0.01)


@pytest.mark.parametrize(("make", "message"), [
    (lambda s: PostureChange(flexion=90.0), "flexion = 90.0 degrees: must be -60 to 60"),
    (lambda s: PostureChange(bending=float("nan")), "bending = nan"),
    (lambda s: PostureChange(wedging=((1.0, 1.0),)), "four pairs"),
    (lambda s: PostureChange(wedging=((20.0, 0.0),) * 4), "at most 12 degrees"),
    (lambda s: PostureSpread(flexion=-1.0), "spread flexion = -1.0"),
    (lambda s: SpineChain({"L3": s["L3"]}), "two or more"),
    (lambda s: SpineChain({"L1": s["L1"], "L3": s["L3"]}), "no chain"),
    (lambda s: SpineChain({"L1": s["L1"], "L2": Mesh(s["L2"].vertices, s["L2"].faces[:-1])}), "L2 is not closed"),
])
def test_absurd_postures_are_refused(spine, make, message):
    with pytest.raises(ValueError, match=message):
        make(spine.meshes)


def test_a_phantom_with_wedged_discs_alone_is_bent(spine, monkeypatch):
    monkeypatch.setattr(phantom_source, "sample_spine", lambda seed: spine)
    source = phantom_source.Source(posture=PostureChange(wedging=((0.0, 0.0), (0.0, 0.0), (4.0, 0.0), (0.0, 0.0))))
    assert source.describe(1)["posture"] == {"wedging": [[0.0, 0.0], [0.0, 0.0], [4.0, 0.0], [0.0, 0.0]]}
    meshes = source.read().meshes
    assert np.linalg.norm(meshes["L1"].vertices - spine.meshes["L1"].vertices, axis=1).max() > 2.0


def test_words_hold_all_that_is_not_0():
    assert PostureChange().as_dict() == {}
    wedging = ((0.0, 0.0), (1.5, 0.0), (0.0, -2.0), (0.0, 0.0))
    assert PostureChange(bending=3.0, double=True, wedging=wedging).as_dict() == {
        "bending": 3.0, "double": True, "wedging": [[0.0, 0.0], [1.5, 0.0], [0.0, -2.0], [0.0, 0.0]]}


def test_bad_posture_is_a_usx_error():
    with pytest.raises(BadPosture):
        PostureChange(scoliosis=1e9)


@pytest.mark.real_data
def test_a_real_column_changes_posture_without_new_overlap(usx_data):
    meshes = read_spine(usx_data / "shapes" / "verse009")
    before = overlaps(meshes)
    changed, difference = change_posture(meshes, random_change(1))
    for pair, depth in overlaps(changed).items():
        assert depth <= before[pair] + TOLERANCE + 1e-6
    assert [len(pair) for pair in pairwise(difference.motions)] == [2] * 4
