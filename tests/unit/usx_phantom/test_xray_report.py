"""The report of the simulated X-ray: its measurements can fail, files are read in any orientation, bad input is one
line."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from usx_common.errors import UsxError
from usx_common.transforms import rotation_about_axis
from usx_common.volumes import Volume, VolumeGrid, write_volume
from usx_phantom import xray_measure, xray_report
from usx_phantom.ct_files import read_ct_scene
from usx_phantom.detector import noise_share
from usx_phantom.xray_settings import XraySettings

SMALL = XraySettings(columns=160, rows=200, spacing=2.0)


def column(direction: np.ndarray | None = None) -> tuple[Volume, Volume]:
    """CT and labels of five blocks of bone above each other, L1 uppermost, with a rod behind each; grid turned."""
    grid = VolumeGrid([-32.0, -40.0, -105.0], [2.0, 2.0, 2.0], (33, 46, 106))
    direction = np.eye(3) if direction is None else direction
    axes = [grid.origin[a] + 2.0 * np.arange(grid.size[a]) for a in range(3)]
    points = np.stack(np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")[::-1], axis=-1) @ direction.T
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    labels = np.zeros(x.shape, np.uint8)
    for number in range(5):
        body = (np.hypot(x, y + 10.0) < 20.0) & (np.abs(z - 76.0 + 38.0 * number) < 13.0)
        rod = (np.abs(x) < 4.0) & (y > 20.0) & (y < 38.0) & (np.abs(z - 76.0 + 38.0 * number) < 8.0)
        labels[body | rod] = 20 + number
    noise = np.random.default_rng(1).normal(0.0, 15.0, x.shape)
    hounsfield = (np.where(labels > 0, 300.0, 35.0) + noise).astype(np.float32)
    turned = replace(grid, origin=direction @ grid.origin, direction=direction)
    return Volume(hounsfield, turned), Volume(labels, turned)


def on_disk(folder: Path, direction: np.ndarray | None = None) -> list[str]:
    ct, labels = column(direction)
    write_volume(folder / "ct.nrrd", ct)
    write_volume(folder / "labels.nrrd", labels)
    return ["--ct", str(folder / "ct.nrrd"), "--labelmap", str(folder / "labels.nrrd")]


def test_sharpness_and_noise_are_measured_and_not_assumed() -> None:
    for settings in (XraySettings(), XraySettings(detector_mtf=0.4, focal_spot=1.2)):
        for cycles in (0.5, 1.0):
            shadow = settings.focal_spot * 350.0 / 750.0
            stated = np.sinc(shadow * cycles) * np.sinc(0.3 * cycles) / (
                1.0 + (1.0 / settings.detector_mtf - 1.0) * cycles**2)
            assert xray_measure.edge_transfer(settings, cycles) == pytest.approx(stated, abs=0.015)
        np.testing.assert_allclose(xray_measure.noise_ratios(settings, 0), noise_share(settings), rtol=0.03)
    assert np.ptp(xray_measure.noise_ratios(XraySettings(), 0)) > 0.001  # fields of one noise would agree by chance
    assert xray_measure.sphere_error() < 0.2


def test_beads_are_found_where_the_tags_say_and_not_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the expected places moved by half a pixel the error is that half, to a tenth."""
    true = xray_measure.pixels_of
    monkeypatch.setattr(xray_measure, "pixels_of", lambda dataset, points: true(dataset, points) + 0.5)
    assert xray_measure.bead_error(0, XraySettings(primary_angle=4.0)) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("turn", [0.0, 8.0])
def test_files_in_any_orientation_become_the_same_scene(turn: float, tmp_path: Path) -> None:
    direction = rotation_about_axis([0.3, 1.0, 0.2], np.radians(turn))
    arguments = on_disk(tmp_path, direction)
    scene = read_ct_scene(Path(arguments[1]), Path(arguments[3]))
    centres = xray_measure.body_centres(scene.labelmap)
    for number, level in enumerate(("L1", "L2", "L3", "L4", "L5")):
        np.testing.assert_allclose(centres[level], [0.0, -10.0, 76.0 - 38.0 * number], atol=1.2)
    tips = np.array([[0.0, 38.0, 76.0 - 38.0 * number] for number in range(5)])
    above = scene.skin.height(tips[:, 0], tips[:, 2]) - tips[:, 1]
    assert above.min() > 14.0 and above.max() < 20.0
    inside = scene.intensities.values[scene.intensities.values > -1000.0]
    assert np.median(inside) == pytest.approx(38.0, abs=6.0)


def test_the_report_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xray_report, "XraySettings", lambda: SMALL)
    monkeypatch.setattr(xray_report, "device_rows", lambda *_: [])
    assert xray_report.main(["--out", str(tmp_path / "out"), *on_disk(tmp_path)]) == 0
    with (tmp_path / "out" / "xray_report.csv").open() as file:
        rows = {row["what"]: float(row["value"]) for row in csv.DictReader(file)}
    # a cylinder of 40 mm with 300 HU instead of 35: 100 HU as water, 200 HU as mineral at 60 keV
    added = rows["CT: water added by a lumbar body, mean"]
    assert added == pytest.approx(40.0 * (0.065 + 0.2 * 1.332), rel=0.08)
    assert rows["CT: scatter to primary, thicker half of the body"] == pytest.approx(0.8, abs=0.1)
    assert 0.0 < rows["CT: contrast of a body, with scatter"] < rows["CT: contrast of a body, primary"]
    for name in ("xray_from_ct.png", "cbct_from_ct.png"):
        assert (tmp_path / "out" / name).stat().st_size < 300_000


def spoil(folder: Path, what: str) -> None:
    ct, labels = column()
    if what == "nan":
        ct.values[5, 5, 5] = np.nan
    if what == "empty":
        labels.values[:] = 0
    if what == "negative":
        labels = Volume(labels.values.astype(np.int16) - 1, labels.grid)
    if what == "transposed":
        labels = Volume(np.ascontiguousarray(labels.values.transpose(2, 1, 0)),
                        replace(labels.grid, size=labels.grid.size[::-1]))
    if what == "thoracic":
        labels = Volume(np.where(labels.values > 0, labels.values - 10, 0).astype(np.uint8), labels.grid)
    write_volume(folder / "ct.nrrd", ct)
    write_volume(folder / "labels.nrrd", labels)


@pytest.mark.parametrize(("what", "words"), [
    ("nan", "not finite"), ("empty", "empty"), ("negative", "negative"), ("transposed", "transposed"),
    ("thoracic", "no lumbar body")])
def test_bad_files_end_with_one_line_and_status_2(what: str, words: str, tmp_path: Path, capsys,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xray_report, "XraySettings", lambda: SMALL)
    monkeypatch.setattr(xray_report, "device_rows", lambda *_: [])
    spoil(tmp_path, what)
    arguments = ["--ct", str(tmp_path / "ct.nrrd"), "--labelmap", str(tmp_path / "labels.nrrd")]
    assert xray_report.main(["--out", str(tmp_path / "out"), *arguments]) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("xray_report: ") and words in message and "\n" not in message


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--ct", "a.nrrd"], ["--labelmap", "b.nrrd"],
                                       ["--ct", "/no/a.nrrd", "--labelmap", "/no/b.nrrd"],
                                       ["--ct", "a.txt", "--labelmap", "b.nrrd"]])
def test_bad_options_end_with_one_line_and_status_2(arguments: list, tmp_path: Path, capsys) -> None:
    assert xray_report.main(["--out", str(tmp_path / "out"), *arguments]) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("xray_report: ") and "\n" not in message


def test_a_ct_that_reaches_too_far_is_refused(tmp_path: Path) -> None:
    grid = VolumeGrid(np.zeros(3), np.array([900.0, 900.0, 900.0]), (2, 2, 2))
    write_volume(tmp_path / "a.nrrd", Volume(np.ones((2, 2, 2), np.float32), replace(grid, spacing=np.full(3, 0.5))))
    write_volume(tmp_path / "b.nrrd", Volume(np.ones((2, 2, 2), np.uint8), grid))
    with pytest.raises(UsxError, match="too large"):
        read_ct_scene(tmp_path / "a.nrrd", tmp_path / "b.nrrd")
