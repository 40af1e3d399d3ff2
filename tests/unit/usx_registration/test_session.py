"""A sweep from its first update to its last: what is published when, and what is refused with which words."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from spine_scene import SpineScene, as_ultrasound, phantom_scene

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.parameters import validate
from usx_registration import report
from usx_registration.cbct_stage import CbctSettings
from usx_registration.gate import CoverageLimits, FitLimits, check_coverage, extent_along, judge
from usx_registration.parameters import TABLE, make_settings
from usx_registration.session import Inputs, Outcome, Session, SessionSettings
from usx_registration.spine_frame import NoPatientAxes, axes_in_volume, patient_axes, spine_to_volume

# The patient lies prone: cranial is +y of world, posterior +z, so left is posterior x cranial = -x.
AXES = patient_axes(np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0]))
CBCT_TO_WORLD = transforms.make_transform(AXES.lps_to_frame, [500.0, 20.0, 130.0])
WORLD_TO_VOLUME = transforms.make_transform(np.eye(3), [-450.0, 40.0, -60.0])
XRAY_TO_CBCT = transforms.make_transform(np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
                                         [-700.0, 20.0, 0.0])


class Sweep:
    """Inputs of a phantom's sweep, and the truth."""

    def __init__(self) -> None:
        self.scene: SpineScene = phantom_scene()
        self.cbct_to_volume = WORLD_TO_VOLUME @ CBCT_TO_WORLD
        self.bone = transforms.apply(self.cbct_to_volume, as_ultrasound(self.scene.bone, 5000, 0.5, 0.1, 1))
        self.bodies = transforms.apply(transforms.invert(XRAY_TO_CBCT), self.scene.bodies)

    def inputs(self, share: float = 1.0, stamp: int = 10, **changes: object) -> Inputs:
        """The first ``share`` of the sweep, from caudal to cranial (cranial is +y)."""
        seen = self.bone[self.bone[:, 1] <= np.quantile(self.bone[:, 1], share)]
        return replace(Inputs(seen, stamp, WORLD_TO_VOLUME, self.scene.cbct, self.bodies, self.scene.body_labels),
                       **changes)

    def cbct_error(self, outcome: Outcome) -> float:
        found = outcome.edges["us_volume", "cbct"]
        return float(np.linalg.norm(transforms.apply(found, self.scene.centres)
                                    - transforms.apply(self.cbct_to_volume, self.scene.centres), axis=1).max())


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return Sweep()


def chain_off_by(millimetres: float, degrees: float) -> np.ndarray:
    turn = Rotation.from_rotvec(np.radians(degrees) * np.array([0.6, 0.0, 0.8])).as_matrix()
    centre = CBCT_TO_WORLD[:3, 3]
    return transforms.make_transform(turn, centre - turn @ centre + [millimetres, 0.0, 0.0]) @ CBCT_TO_WORLD


def device(limits: FitLimits = FitLimits(), **changes: object) -> SessionSettings:  # noqa: B008
    return SessionSettings(axes=AXES, cbct=CbctSettings(chain_off_by(5.0, 3.0), XRAY_TO_CBCT, limits=limits), **changes)


def test_a_sweep_with_device_and_cbct(sweep: Sweep) -> None:
    session = Session(device())
    early = session.process(sweep.inputs(0.15, 1))
    assert (early.verdict.reason, early.partial) == ("too_short", None)
    assert "60 mm are needed" in early.verdict.text and not early.edges
    middle = session.process(sweep.inputs(0.6, 2))
    last = session.process(sweep.inputs(1.0, 3))
    for outcome in (middle, last):
        assert outcome.verdict.passed and not outcome.notes
        assert sweep.cbct_error(outcome) < 1.0
        assert ("cbct", "xray") in outcome.edges and ("us_volume", "xray") not in outcome.edges
    assert np.array_equal(middle.edges["us_volume", "spine"], last.edges["us_volume", "spine"])
    assert report.levels_found(last) == ["L1", "L2", "L3", "L4", "L5"]
    partial = last.partial
    assert partial is not None
    assert len(partial.points) == len(sweep.bone) + len(sweep.scene.bodies)
    # the joint cloud lies where the truth says, in the directions of the patient
    spine_to_cbct = transforms.invert(sweep.cbct_to_volume) @ last.edges["us_volume", "spine"]
    assert np.degrees(transforms.rotation_angle(spine_to_cbct)) < 1.0
    xray = transforms.apply(spine_to_cbct, partial.points[partial.sources == 1])
    assert np.abs(xray[:, 1:] - sweep.scene.bodies[:, 1:]).max() < 1.5


def test_vertebra_frames_sit_in_their_bodies(sweep: Sweep) -> None:
    outcome = Session(device()).process(sweep.inputs())
    spine_to_cbct = transforms.invert(sweep.cbct_to_volume) @ outcome.edges["us_volume", "spine"]
    for label, name in ((20, "L1"), (22, "L3"), (24, "L5")):
        pose = spine_to_cbct @ outcome.edges["spine", f"vertebra_{name}"]
        truth = sweep.scene.bodies[sweep.scene.body_labels == label].mean(axis=0)
        assert pose[:3, 3] == pytest.approx(truth, abs=2.5)
        assert transforms.is_rigid(pose) and pose[2, 2] > 0.7 and pose[0, 0] > 0.9


def test_without_device_the_xray_is_placed_by_the_ultrasound(sweep: Sweep) -> None:
    outcome = Session(SessionSettings(axes=AXES)).process(sweep.inputs(cbct=None))
    assert outcome.verdict.passed and not outcome.notes
    volume_to_cbct = transforms.invert(sweep.cbct_to_volume)
    placed = transforms.apply(volume_to_cbct @ outcome.edges["us_volume", "xray"], sweep.bodies)
    assert np.linalg.norm(placed - sweep.scene.bodies, axis=1).max() < 5.0
    assert ("us_volume", "cbct") not in outcome.edges


def test_ultrasound_alone_has_no_levels(sweep: Sweep) -> None:
    outcome = Session(SessionSettings(axes=AXES)).process(sweep.inputs(cbct=None, bodies=None, labels=None))
    assert outcome.verdict.passed and outcome.partial is not None
    assert not outcome.partial.labels.any() and not outcome.partial.sources.any()
    assert list(outcome.edges) == [("us_volume", "spine")]
    assert "no X-ray" in outcome.notes[0] and not report.is_good(outcome)


def test_chain_without_cbct_is_used_and_flagged(sweep: Sweep) -> None:
    outcome = Session(device()).process(sweep.inputs(cbct=None))
    assert outcome.verdict.passed and ("cbct", "xray") in outcome.edges
    assert any("not checked by images" in note for note in outcome.notes)


def test_a_late_cbct_lays_the_frame_once_more_and_then_for_good(sweep: Sweep) -> None:
    session = Session(device())
    updates = [sweep.inputs(0.8, 1, cbct=None), sweep.inputs(0.9, 2, cbct=None), sweep.inputs(0.95, 3),
               sweep.inputs(1.0, 4)]
    frames = [session.process(update).edges["us_volume", "spine"] for update in updates]
    off = [np.degrees(transforms.rotation_angle(transforms.invert(sweep.cbct_to_volume) @ frame)) for frame in frames]
    assert off[:2] == pytest.approx([3.0, 3.0], abs=0.1) and max(off[2:]) < 1.0
    assert np.array_equal(frames[0], frames[1]) and np.array_equal(frames[2], frames[3])


def test_cbct_without_chain_is_found_from_the_patient_axes(sweep: Sweep) -> None:
    outcome = Session(SessionSettings(axes=AXES)).process(sweep.inputs())
    assert sweep.cbct_error(outcome) < 1.0
    assert any("cbct_to_world is not set" in note for note in outcome.notes)


def test_axes_of_the_cbct_serve_where_none_are_configured(sweep: Sweep) -> None:
    settings = replace(device(), axes=None)
    outcome = Session(settings).process(sweep.inputs())
    spine_to_cbct = transforms.invert(sweep.cbct_to_volume) @ outcome.edges["us_volume", "spine"]
    assert np.degrees(transforms.rotation_angle(spine_to_cbct)) < 1.0


@pytest.mark.parametrize(("settings", "changes", "reason", "words"), [
    (SessionSettings(), {"cbct": None}, "no_patient_axes", "patient_cranial_axis and patient_posterior_axis"),
    (SessionSettings(axes=AXES), {"cbct": None, "world_to_volume": None}, "no_patient_axes", "not known yet"),
    (SessionSettings(), {}, "no_initial_guess", "cbct_to_world"),
    (device(), {"cbct": np.zeros((0, 3))}, "bad_input", "empty"),
    (device(FitLimits(overlap=0.99)), {}, "low_overlap", "99% are needed"),
    (device(FitLimits(median=0.05)), {}, "large_residual", "0.05 mm is allowed"),
    (device(FitLimits(runner_up=9.0)), {}, "ambiguous_level", "a level away"),
    (device(), {"bone": np.zeros((0, 3))}, "too_few_points", "0 ultrasound bone points"),
])
def test_what_is_refused_and_why(sweep: Sweep, settings: SessionSettings, changes: dict, reason: str,
                                 words: str) -> None:
    outcome = Session(settings).process(sweep.inputs(**changes))
    assert outcome.verdict.reason == reason and words in outcome.verdict.text
    assert outcome.partial is None and not outcome.edges
    assert words in report.sentence(outcome) and not report.is_good(outcome)


def test_stretched_ultrasound_is_refused_with_the_axis_and_the_factor(sweep: Sweep) -> None:
    middle = sweep.bone.mean(axis=0)
    stretched = middle + (sweep.bone - middle) * [1.0, 1.12, 1.0]  # world y is the patient's cranial axis
    outcome = Session(device()).process(sweep.inputs(bone=stretched))
    assert not outcome.verdict.passed
    assert "along cranial" in outcome.verdict.text and outcome.verdict.numbers["scale_cranial"] < 0.93


def test_a_foreign_cbct_is_refused(sweep: Sweep) -> None:
    random = np.random.default_rng(0)
    blob = random.normal(size=(30000, 3))
    blob = 60.0 * blob / np.linalg.norm(blob, axis=1, keepdims=True)
    outcome = Session(device()).process(sweep.inputs(cbct=blob + sweep.scene.cbct.mean(axis=0)))
    assert outcome.verdict.reason == "low_overlap" and outcome.partial is None


def test_bodies_without_order_leave_the_xray_out(sweep: Sweep) -> None:
    outcome = Session(device()).process(sweep.inputs(labels=44 - sweep.scene.body_labels))
    assert outcome.verdict.passed and outcome.partial is not None and not outcome.partial.labels.any()
    assert any("follow one another" in note for note in outcome.notes)
    assert not any(child == "xray" for _, child in outcome.edges)


@pytest.mark.parametrize("second", [{"stamp": 1}, {"share": 0.4}])
def test_a_new_sweep_decides_the_frame_anew(sweep: Sweep, second: dict) -> None:
    session = Session(SessionSettings(axes=AXES))
    alone = {"cbct": None, "bodies": None, "labels": None}
    first = session.process(sweep.inputs(1.0, 100, **alone))
    moved = session.process(replace(sweep.inputs(**{"share": 1.0, "stamp": 101, **second, **alone})))
    session.process(sweep.inputs(1.0, 200, **alone))
    again = session.process(sweep.inputs(1.0, 5, bone=sweep.bone + [30.0, 0.0, 0.0], **alone))
    assert again.edges["us_volume", "spine"][0, 3] == pytest.approx(first.edges["us_volume", "spine"][0, 3] + 30.0)
    kept = np.allclose(moved.edges["us_volume", "spine"], first.edges["us_volume", "spine"])
    assert kept == ("share" not in second)


# the frame and the gate by themselves


def test_spine_frame_ignores_strays_and_is_lps() -> None:
    points = np.random.default_rng(0).uniform([-40, -80, -10], [40, 80, 10], (4000, 3))
    pose = spine_to_volume(np.concatenate([points, [[0.0, 0.0, 900.0]]]), AXES)
    assert pose[:3, 3] == pytest.approx([0.0, 0.0, 0.0], abs=2.0)
    assert pose[:3, 0] == pytest.approx([-1.0, 0.0, 0.0])  # left of a prone patient
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)


@pytest.mark.parametrize(("cranial", "posterior", "words"), [
    ((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), "patient_cranial_axis"),
    ((0.0, 1.0, 0.0), (0.0, np.nan, 1.0), "patient_posterior_axis"),
    ((0.0, 1.0, 0.0), (0.0, 1.0, 0.1), "6 degrees apart"),
])
def test_axes_that_are_refused(cranial: tuple, posterior: tuple, words: str) -> None:
    with pytest.raises(UsxError, match=words):
        patient_axes(np.array(cranial), np.array(posterior))


def test_no_axes_at_all() -> None:
    with pytest.raises(NoPatientAxes, match="set both parameters"):
        axes_in_volume(None, WORLD_TO_VOLUME, None)


def test_the_angle_to_the_cbct_is_told() -> None:
    turned = patient_axes(np.array([0.0, 1.0, 0.0]), np.array([0.2, 0.0, 1.0]))
    axes, angle = axes_in_volume(turned, WORLD_TO_VOLUME, WORLD_TO_VOLUME @ CBCT_TO_WORLD)
    assert angle == pytest.approx(np.degrees(np.arctan(0.2)), abs=1e-6)
    assert axes.posterior == pytest.approx([0.0, 0.0, 1.0])


def test_gate_names_the_first_failure_and_tells_all() -> None:
    verdict = judge([(True, "a", "A"), (False, "b", "B 1"), (False, "c", "C 2")], {"x": 1.0})
    assert (verdict.passed, verdict.reason, verdict.text, verdict.numbers) == (False, "b", "B 1; C 2", {"x": 1.0})


def test_coverage_is_measured_along_the_spine() -> None:
    points = np.random.default_rng(0).uniform([-50, -20, -5], [50, 20, 5], (400, 3))
    assert extent_along(points, np.array([0.0, 1.0, 0.0])) == pytest.approx(39.0, abs=1.5)
    assert not check_coverage(points, np.array([0.0, 1.0, 0.0]), CoverageLimits()).passed
    assert check_coverage(points, np.array([1.0, 0.0, 0.0]), CoverageLimits()).passed
    assert extent_along(points[:0], np.array([1.0, 0.0, 0.0])) == 0.0


# parameters


def values(**changes: object) -> dict[str, object]:
    return {parameter.name: changes.get(parameter.name, parameter.default) for parameter in TABLE}


def test_settings_of_parameters() -> None:
    settings = make_settings(values(cbct_to_world=CBCT_TO_WORLD.ravel().tolist(), min_extent=80.0, xray_beam="left",
                                    patient_cranial_axis=[0.0, 2.0, 0.0], patient_posterior_axis=[0.0, 0.0, 1.0]))
    assert np.allclose(settings.cbct.cbct_to_world, CBCT_TO_WORLD) and settings.cbct.xray_to_cbct is None
    assert settings.coverage.extent == 80.0 and settings.beam == "left"
    assert settings.axes is not None and settings.axes.cranial == pytest.approx([0.0, 1.0, 0.0])


def test_one_axis_without_the_other_is_refused() -> None:
    with pytest.raises(UsxError, match="belong together"):
        make_settings(values(patient_cranial_axis=[0.0, 1.0, 0.0]))


@pytest.mark.parametrize(("name", "value"), [
    ("xray_placement", "guess"), ("xray_beam", "up"), ("cbct_to_world", [1.0] * 15), ("cbct_to_world", [0.0] * 16),
    ("xray_to_cbct", (np.diag([2.0, 1.0, 1.0, 1.0])).ravel().tolist()), ("patient_cranial_axis", [0.0, 0.0, 0.0]),
    ("patient_posterior_axis", [1.0, 0.0]), ("min_points", 3), ("min_extent", -1.0), ("min_overlap", 1.5),
    ("max_scale_error", float("nan")), ("max_residual_median", "1"), ("min_level_contrast", 0.5),
])
def test_bad_parameters_are_refused_by_name(name: str, value: object) -> None:
    parameter = next(p for p in TABLE if p.name == name)
    with pytest.raises(UsxError, match=name):
        validate(parameter, value)


def test_bodies_that_came_empty_are_no_bodies() -> None:
    for points in (np.empty((0, 3)), np.full((4, 3), np.nan)):
        assert report.finite_labelled(points, np.full(len(points), 21.0)) == (None, None)
