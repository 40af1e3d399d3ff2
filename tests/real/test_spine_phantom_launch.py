"""The launch file replays a bag made of a real sweep that has no X-ray; the nodes say why nothing is completed."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from usx_bringup.results import read_results

USX = [sys.executable, "-m", "usx_runtime"]


@pytest.mark.real_data
@pytest.mark.timeout(240)
def test_a_real_sweep_goes_through_the_launch_file(usx_data, tmp_path):
    environment = os.environ | {"ROS_DOMAIN_ID": str(random.SystemRandom().randint(1, 200)), "OMP_NUM_THREADS": "1"}
    sequence = usx_data / "sweeps" / "SpinePhantomFreehand.igs.mha"
    calibration = sequence.with_name("PlusDeviceSet_VolumeReconstructionOnly_SpinePhantom_NN_MEAN.xml")
    made = subprocess.run([*USX, "run", "usx_compounding", "igs_to_bag", str(sequence), "--calibration",
                           str(calibration), "--out", str(tmp_path / "acquisition"), "--quiet"], check=False)
    assert made.returncode == 0
    shown = subprocess.run([*USX, "run", "usx_bringup", "demo", "--acquisition", str(tmp_path / "acquisition"), "--out",
                            str(tmp_path / "out"), "--patience", "5"], env=environment, capture_output=True, text=True,
                           check=False, timeout=220)
    results = read_results(tmp_path / "out")
    account = results.account()
    assert shown.returncode == 1, shown.stdout + shown.stderr
    assert account == {"received": 21, "used": 21, "pending": 0, "rejected": 0}
    words = results.what_is_missing()
    assert "registration_node: refused" in words and "xray_node: waiting for an X-ray" in words
    assert (tmp_path / "out" / "volume.nrrd").is_file()
    assert words in (tmp_path / "out" / "report.md").read_text()
