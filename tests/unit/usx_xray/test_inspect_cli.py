from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from usx_xray.inspect_cli import main


def test_accepted_file_with_picture(dx_file: Callable[..., Path], make_radiograph: Callable, tmp_path: Path,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    radiograph = make_radiograph(0)
    pixels = ((radiograph.pixels - radiograph.pixels.min()) * 1000).astype(np.uint16)
    path = dx_file(pixels, DistanceSourceToDetector="1080", ImagerPixelSpacing=["0.3", "0.3"])
    parameters = tmp_path / "params.yaml"
    lines = [f"    seed_{name}s: {[getattr(seed, name) for seed in radiograph.seeds]}"
             for name in ("label", "column", "row")]
    parameters.write_text("/**/xray_node:\n  ros__parameters:\n" + "\n".join(lines) + "\n")
    picture = tmp_path / "x.png"
    assert main([str(path), "--params", str(parameters), "--png", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "accepted" in out and "1.4400" in out and "L5" in out and "Verysecret" not in out
    drawn = cv2.imread(str(picture))
    assert drawn.shape[:2] == radiograph.pixels.shape and (np.ptp(drawn.astype(int), axis=2) > 50).sum() > 1000


def test_refused_files_and_a_series(dx_file: Callable[..., Path], ct_folder: Callable, tmp_path: Path,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    dx_file(ImagerPixelSpacing=None)
    volume = np.full((6, 24, 24), -1000)
    volume[:, 6:18, 6:18] = 900
    ct_folder(volume)
    assert main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "no_geometry" in out and "CT series of 6 slices" in out and "Traceback" not in out


@pytest.mark.parametrize("arguments", [["/nowhere/x"], ["EMPTY"], ["X", "--seed", "20,abc"], ["X", "--seed", "99,1,1"],
                                       ["X", "--params", "/nowhere.yaml"], ["X", "--png", "/nowhere/x.png"]])
def test_mistakes_are_told_in_one_line(arguments: list[str], dx_file: Callable[..., Path], tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    names = {"X": str(dx_file()), "EMPTY": str(tmp_path / "empty")}
    (tmp_path / "empty").mkdir()
    code = main([names.get(argument, argument) for argument in arguments])
    streams = capsys.readouterr()
    assert code in (1, 2) and "Traceback" not in streams.err
    assert len(streams.err.strip().splitlines()) <= 1
