"""The report that holds simulated frames against real ones: its table, its refusals, and the real recordings."""

import csv

import numpy as np
import pytest

from usx_phantom import ultrasound_report
from usx_phantom.frame_measures import FrameSet, measure_frames
from usx_phantom.image_statistics import RAYLEIGH_SNR, rayleigh_distance, speckle_snr
from usx_phantom.simulated_frames import homogeneous_envelopes


def ridge(depth: float, lines: int = 60) -> np.ndarray:
    """Grey (lines, 600) at 0.1 mm: tissue of 60, bone of 230 at `depth` mm, shadow of 10, 40 at twice it."""
    r = np.arange(600) * 0.1
    line = np.where(r < depth, 60.0, 10.0)
    line = np.maximum(line, 230.0 * np.exp(-0.5 * ((r - depth) / 0.5) ** 2))
    line = np.maximum(line, 40.0 * (np.abs(r - 2.0 * depth) < 2.05))
    return np.tile(line, (lines, 1))


def test_measures_of_a_made_up_bone_are_those_it_was_made_with() -> None:
    measures = measure_frames(FrameSet("made up", ridge(22.0)[None], 0.1, 0.2, 8.0))
    middle = {name: float(np.median(values)) for name, values in measures.values.items()}
    assert middle["bone, grey"] == pytest.approx(230.0, abs=1.0)
    assert middle["shadow, grey"] == pytest.approx(10.0, abs=0.5)
    assert middle["tissue above the bone, grey"] == pytest.approx(60.0, abs=1.0)
    assert middle["bone over tissue, grey"] == pytest.approx(170.0, abs=2.0)
    assert middle["bone line, FWHM along the beam, mm"] == pytest.approx(0.5 * 2.3548, abs=0.05)
    assert middle["second echo over shadow, grey"] == pytest.approx(30.0, abs=1.0)
    assert measures.profile[np.abs(measures.depth) < 0.06].max() > 225.0


def test_lines_far_from_the_true_bone_are_not_measured() -> None:
    truth = np.full((1, 60), 22.0)
    truth[0, :20] = np.inf
    truth[0, 20:30] = 30.0
    measures = measure_frames(FrameSet("made up", ridge(22.0)[None], 0.1, 0.2, 8.0, truth))
    assert len(measures.values["bone, grey"]) == 30
    with pytest.raises(ultrasound_report.UsxError, match="none of 1 frames"):
        measure_frames(FrameSet("made up", ridge(22.0)[None], 0.1, 0.2, 8.0, np.full((1, 60), np.inf)))


def test_homogeneous_tissue_has_rayleigh_statistics() -> None:
    """Mean over sd, the Kolmogorov-Smirnov distance, and the fourth moment (2 for the intensity) of fresh frames."""
    for envelope in homogeneous_envelopes(3, seed=9):
        level = envelope[::4, ::8] / np.sqrt((envelope**2).mean(axis=0, keepdims=True))[:, ::8]
        assert speckle_snr(level) == pytest.approx(RAYLEIGH_SNR, abs=0.06)
        assert rayleigh_distance(level) < 0.025
        assert (level**4).mean() / (level**2).mean() ** 2 == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("arguments, part", [
    (["--data", "/nowhere/at/all"], "is missing"), (["--frames", "0"], "--frames"), (["--seed", "-4"], "--seed")])
def test_bad_input_ends_with_one_line(arguments: list, part: str, tmp_path, capsys) -> None:
    assert ultrasound_report.main(["--out", str(tmp_path), *arguments]) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("ultrasound_report: ") and part in message and "\n" not in message


@pytest.mark.real_data
def test_the_simulation_lies_in_the_range_of_real_frames(usx_data, tmp_path, capsys) -> None:
    assert ultrasound_report.main(["--out", str(tmp_path), "--data", str(usx_data / "sweeps"), "--frames", "9",
                                   "--seed", "3"]) == 0
    with (tmp_path / "measures.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 and {row["measure"] for row in rows if row["within"] != "1"} == set()
    snr = float(next(row for row in rows if row["measure"].startswith("speckle SNR"))["real_median"])
    assert 1.7 < snr < 2.0  # clutter of the real probe, its compression undone
    assert (tmp_path / "comparison.png").stat().st_size > 50000
    assert "| yes |" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100
