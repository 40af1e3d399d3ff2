"""Absurd settings are refused by name; every preset's text tells all its numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from usx_common.errors import UsxError
from usx_completion.data.body_mask import SegmentationErrors
from usx_completion.data.crop import CropSettings
from usx_completion.data.presets import AUTHORS, PAPER, PRESETS, REALISTIC, DropRules, SampleSettings
from usx_completion.data.sweep_path import SweepSettings, TrackingErrors
from usx_completion.data.visibility_paper import PaperVisibility
from usx_completion.data.visibility_realistic import EchoSettings, FaultSettings
from usx_completion.data.xray_cloud import PaperXray, RealisticXray


@pytest.mark.parametrize("kind, name, value", [
    (PaperVisibility, "columns", 0), (PaperVisibility, "camera_mm", float("nan")), (PaperVisibility, "keep_mm", -1.0),
    (SweepSettings, "lines", 1), (SweepSettings, "depth_mm", (120.0, 80.0)), (SweepSettings, "skin_mm", (-5.0, 5.0)),
    (TrackingErrors, "drift_mm", -0.1), (EchoSettings, "incidence_deg", (50.0, 100.0)),
    (EchoSettings, "points_per_echo", 0), (FaultSettings, "stray", (0.0, 2.0)), (SegmentationErrors, "corner", 1.5),
    (RealisticXray, "source_mm", (10.0, 20.0)), (RealisticXray, "tilt_deg", 90.0), (PaperXray, "plane", "left"),
    (CropSettings, "rule", "sphere"),
])
def test_absurd_settings_are_refused_by_name(kind, name, value):
    with pytest.raises(UsxError, match=f"{name}.*{str(value)[1:4]}"):
        kind(**{name: value})


def test_the_text_of_settings_holds_every_number_and_tells_presets_apart():
    texts = {name: json.loads(SampleSettings(preset).text()) for name, preset in PRESETS.items()}
    assert texts["paper"]["preset"]["visibility"]["merge_mm"] == [5.0, -1.0]
    assert texts["realistic"]["preset"]["xray"]["segmentation"]["corner"] == 0.25
    assert texts["paper"] != texts["realistic"] and PAPER.posture is None and REALISTIC.posture is not None


def test_the_preset_authors_does_what_their_scripts_do():
    assert AUTHORS.visibility == replace(PAPER.visibility, mirrored_cameras=True)
    assert AUTHORS.xray.plane == "truth" and AUTHORS.crop == PAPER.crop
    assert SampleSettings(AUTHORS).drop_rules == DropRules(oversized=True, sparse=True)
    assert SampleSettings(AUTHORS, drops=DropRules()).drop_rules == SampleSettings(PAPER).drop_rules == DropRules()


def test_the_realistic_numbers_are_those_asked_for():
    assert REALISTIC.visibility.echo.noise_mm == (0.3, 1.0) and REALISTIC.xray.tilt_deg == 8.0
    assert REALISTIC.xray.left_right_mm[1] == 10.0 and REALISTIC.crop.rule == "placed_mean"
    assert min(REALISTIC.crop.jitter_mm) > 0.0
