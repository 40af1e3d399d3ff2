"""The report of postures: its table adds up and nothing overlaps more than it may."""

import csv

import pytest

from usx_phantom import posture_report
from usx_phantom.posture_report import STATED, main
from usx_phantom.spine import mean_spine
from usx_phantom.spine_chain import TOLERANCE


def test_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(posture_report, "sample_spine", lambda seed: mean_spine(spacing=3.2))
    monkeypatch.setattr(posture_report, "RANDOM", 1)
    assert main(["--out", str(tmp_path), "--count", "1"]) == 0
    with (tmp_path / "postures.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * (len(STATED) + 1)
    for row in rows:
        assert float(row["overlap_after_mm"]) <= float(row["overlap_before_mm"]) + TOLERANCE + 1e-3
        assert 0.0 <= float(row["taken"]) <= 1.0
    flexion = [float(row["turn_deg"]) for row in rows if row["posture"] == "flexion 20"]
    assert sum(flexion) == pytest.approx(20.0, abs=0.1)
    assert (tmp_path / "phantom_postures.png").stat().st_size > 10_000
    assert "turned as wanted" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "message"), [(["--count", "0"], "--count 0"),
                                                    (["--meshes", "/nowhere"], "does not exist")])
def test_bad_input(tmp_path, capsys, arguments, message):
    assert main(["--out", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
