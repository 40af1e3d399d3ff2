"""One sweep's registration, from its first accepted update to its last: what is kept, what is done anew.

Takes the inputs of registration_node as arrays and answers with transforms, the joint cloud and a verdict. Everything
is in mm; times are whole nanoseconds of the data.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from usx_common import transforms
from usx_common.clouds import principal_axes
from usx_common.errors import UsxError
from usx_common.levels import level_of_label
from usx_registration.bodies import BadBodies, measure_bodies
from usx_registration.cbct_stage import CbctSettings, CbctStage
from usx_registration.gate import CoverageLimits, Verdict, check_coverage
from usx_registration.joint_cloud import JointCloud, join
from usx_registration.level_split import SplitSettings, split_levels
from usx_registration.spine_frame import NoPatientAxes, PatientAxes, axes_in_volume, spine_to_volume
from usx_registration.surfaces import main_bone_mask
from usx_registration.xray_stage import XrayLimits, XrayPose, place

Array = NDArray[np.float64]
Edges = dict[tuple[str, str], Array]  # (parent, child) -> child_to_parent (4, 4), mm

SHRUNK = 0.5
AXES_WARNING_DEG = 25.0


@dataclass(frozen=True)
class SessionSettings:
    """``axes``: patient axes in world, where configured; ``placement``: ``auto``, ``device`` or ``paper``; ``beam``:
    ``auto``, ``left`` or ``right``."""

    axes: PatientAxes | None = None
    cbct: CbctSettings = field(default_factory=CbctSettings)
    placement: str = "auto"
    beam: str = "auto"
    coverage: CoverageLimits = field(default_factory=CoverageLimits)
    xray: XrayLimits = field(default_factory=XrayLimits)
    split: SplitSettings = field(default_factory=SplitSettings)


@dataclass(frozen=True)
class Inputs:
    """``bone``: (N, 3) mm, frame us_volume, with its ``stamp`` in ns; ``world_to_volume``: (4, 4) or None;
    ``cbct``: (M, 3) mm, frame cbct, or None; ``bodies``: (K, 3) mm, frame xray, with ``labels`` (K,), or None."""

    bone: Array
    stamp: int
    world_to_volume: Array | None = None
    cbct: Array | None = None
    bodies: Array | None = None
    labels: NDArray | None = None


@dataclass(frozen=True)
class Outcome:
    """``verdict`` of the gate; when it passed: ``partial`` in frame spine, and ``edges``: (parent, child) ->
    child_to_parent (4, 4) mm. ``notes``: what is worth a warning although the result stands;
    ``by_images``: the CBCT's pose was found from the images."""

    stamp: int
    verdict: Verdict
    partial: JointCloud | None = None
    edges: Edges = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    by_images: bool = False


class Session:
    """Processes the updates of one sweep after another; not thread-safe, called from one worker."""

    def __init__(self, settings: SessionSettings) -> None:
        self.settings = settings
        self._cbct = CbctStage(settings.cbct)
        self._spine_to_volume: Array | None = None
        self._by_images = False
        self._axes_off = 0.0
        self._last_stamp = -1
        self._most_points = 0

    def process(self, inputs: Inputs) -> Outcome:
        """Register one update. Never raises for bad data: the verdict says what was wrong."""
        if inputs.stamp < self._last_stamp or len(inputs.bone) < SHRUNK * self._most_points:
            self.new_sweep()
        self._last_stamp = inputs.stamp
        self._most_points = max(self._most_points, len(inputs.bone))
        try:
            return self._process(inputs)
        except NoPatientAxes as error:
            return Outcome(inputs.stamp, Verdict(False, "no_patient_axes", str(error)))
        except UsxError as error:
            return Outcome(inputs.stamp, Verdict(False, "bad_input", str(error)))

    def new_sweep(self) -> None:
        """Forget the sweep: pose of the CBCT and origin of the spine frame are decided anew."""
        self._cbct.forget()
        self._spine_to_volume = None
        self._by_images = False
        self._most_points = 0

    def _process(self, inputs: Inputs) -> Outcome:
        main = inputs.bone[main_bone_mask(inputs.bone)]
        coverage = check_coverage(main, self._rough_cranial(inputs), self.settings.coverage)
        if not coverage.passed:
            return Outcome(inputs.stamp, coverage)
        state = self._cbct.update(main, inputs.cbct, inputs.world_to_volume, self.settings.axes)
        if not state.verdict.passed:
            return Outcome(inputs.stamp, state.verdict)
        # a frame laid by the device chain or the axes as meant is provisional until images confirm the patient's pose
        if self._spine_to_volume is None or (state.by_images and not self._by_images):
            self._by_images = state.by_images
            axes, self._axes_off = axes_in_volume(self.settings.axes, inputs.world_to_volume, state.cbct_to_volume)
            self._spine_to_volume = spine_to_volume(main, axes)
        frame = self._spine_to_volume
        volume_to_spine = transforms.invert(frame)
        bone = transforms.apply(volume_to_spine, inputs.bone)
        numbers, notes = {**coverage.numbers, **state.verdict.numbers}, list(state.notes)
        if self._axes_off > AXES_WARNING_DEG:
            notes.append(f"the patient axes differ by {self._axes_off:.0f} degrees from those of the CBCT; check "
                         "patient_cranial_axis, patient_posterior_axis and cbct_to_world")
        edges = {("us_volume", "spine"): frame}
        if state.cbct_to_volume is not None:
            edges["us_volume", "cbct"] = state.cbct_to_volume
        pose = self._place_xray(inputs, transforms.apply(volume_to_spine, main), frame, state.cbct_to_volume)
        numbers.update(pose.numbers)
        notes += pose.notes
        partial, more = self._joint(inputs, bone, pose, edges, numbers)
        return Outcome(inputs.stamp, Verdict(True, numbers=numbers), partial, edges, (*notes, *more), state.by_images)

    def _rough_cranial(self, inputs: Inputs) -> Array:
        """Direction along which coverage is measured; the longest of the cloud when the patient's is not known."""
        if self.settings.axes is not None and inputs.world_to_volume is not None:
            return self.settings.axes.rotated(inputs.world_to_volume).cranial
        return principal_axes(inputs.bone)[1][0] if len(inputs.bone) >= 3 else np.array([0.0, 0.0, 1.0])

    def _place_xray(self, inputs: Inputs, bone: Array, frame: Array, cbct_to_volume: Array | None) -> XrayPose:
        if inputs.bodies is None or inputs.labels is None:
            return XrayPose(None, notes=("no X-ray: the levels of the vertebrae are not known",))
        cbct_to_spine = None if cbct_to_volume is None else transforms.invert(frame) @ cbct_to_volume
        settings = self.settings
        return place((settings.placement, settings.beam), settings.cbct.xray_to_cbct, cbct_to_spine, bone,
                     (inputs.bodies, inputs.labels), settings.xray)

    def _joint(self, inputs: Inputs, bone: Array, pose: XrayPose, edges: Edges,
               numbers: dict[str, float]) -> tuple[JointCloud, list[str]]:
        """The joint cloud; adds the X-ray's and the vertebrae's transforms to ``edges``."""
        alone = join(bone, np.zeros(len(bone), np.uint8))
        if pose.xray_to_spine is None or inputs.bodies is None or inputs.labels is None:
            return alone, []
        try:
            joined = join_with_xray(bone, inputs.bodies, inputs.labels, pose, (edges, numbers), self.settings)
        except BadBodies as error:
            return alone, [f"X-ray left out: {error}"]
        if pose.by_device:
            assert self.settings.cbct.xray_to_cbct is not None
            edges["cbct", "xray"] = self.settings.cbct.xray_to_cbct
        else:
            edges["us_volume", "xray"] = edges["us_volume", "spine"] @ pose.xray_to_spine
        return joined


def join_with_xray(bone: Array, xray_points: Array, labels: NDArray, pose: XrayPose,
                   report: tuple[Edges, dict[str, float]],
                   settings: SessionSettings) -> tuple[JointCloud, list[str]]:
    """Split the bone (N, 3), frame spine, by the placed X-ray and join both; adds vertebra frames and figures."""
    edges, numbers = report
    assert pose.xray_to_spine is not None
    placed = transforms.apply(pose.xray_to_spine, xray_points)
    bodies = measure_bodies(placed, labels)
    split = split_levels(bone, bodies, settings.split)
    shift = split.column_shift[:3, 3]
    numbers["split_median_mm"] = split.median
    numbers["xray_disagreement_mm"] = float(np.hypot(shift[1], shift[2]))
    notes = []
    if numbers["xray_disagreement_mm"] > settings.xray.disagreement:
        notes.append(f"X-ray and ultrasound disagree by {numbers['xray_disagreement_mm']:.0f} mm in the sagittal "
                     "plane; check the seeds' labels and the X-ray's pose")
    for label, body in bodies.items():
        middle = float(split.surfaces[label][:, 0].mean()) if label in split.surfaces else body.body_to_spine[0, 3]
        edges["spine", label_frame(label)] = moved_sideways(body.body_to_spine, middle)
    middles = {label: float(edges["spine", label_frame(label)][0, 3]) for label in bodies}
    return join(bone, split.labels, xray_points, labels, (pose.xray_to_spine, middles)), notes


def label_frame(label: int) -> str:
    """TF frame of a level."""
    return f"vertebra_{level_of_label(label)}"


def moved_sideways(body_to_spine: Array, x: float) -> Array:
    """The same pose with another left coordinate, mm."""
    moved = body_to_spine.copy()
    moved[0, 3] = x
    return moved
