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
from usx_phantom.detector import noise_share
from usx_phantom.phantom_scene import body_centres, build_scene
from usx_phantom.phantom_source import Source
from usx_phantom.posture import parse_posture
from usx_phantom.xray_settings import XraySettings

SMALL = XraySettings(columns=160, rows=200, spacing=2.0)


def column(direction: np.ndarray | None = None) -> tuple[Volume, Volume]:
    """CT and labels of five bodies above each other, L1 uppermost, a process behind each; grid turned, 2 mm."""
    grid = VolumeGrid([-32.0, -40.0, -105.0], [2.0, 2.0, 2.0], (33, 46, 106))
    direction = np.eye(3) if direction is None else direction
    axes = [grid.origin[a] + 2.0 * np.arange(grid.size[a]) for a in range(3)]
    points = np.stack(np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")[::-1], axis=-1) @ direction.T
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    labels = np.zeros(x.shape, np.uint8)
    for number in range(5):
        height = np.abs(z - 76.0 + 38.0 * number)
        body = (np.hypot(x, y + 10.0) < 20.0) & (height < 15.0)
        pedicles = (np.abs(np.abs(x) - 10.0) < 4.0) & (y > -5.0) & (y < 26.0) & (height < 8.0)
        arch = (np.abs(x) < 24.0) & (y > 20.0) & (y < 26.0) & (height < 8.0)
        process = (np.abs(x) < 4.0) & (y > 20.0) & (y < 38.0) & (height < 8.0)
        labels[body | pedicles | arch | process] = 20 + number
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
    """The same as `make_phantom` makes of them: bones, CT and skin on each other, wherever the files' axes point."""
    direction = rotation_about_axis([0.3, 1.0, 0.2], np.radians(turn))
    arguments = on_disk(tmp_path, direction)
    options = xray_report.parser().parse_args(["--out", "unused", *arguments])
    scene = xray_report._scenes(options, 0)["CT"]
    shift = np.rint(body_centres(scene.labelmap)["L3"] - [0.0, -10.0, 0.0])  # whole mm
    for number, level in enumerate(("L1", "L2", "L3", "L4", "L5")):
        np.testing.assert_allclose(body_centres(scene.labelmap)[level] - shift, [0.0, -10.0, 76.0 - 38.0 * number],
                                   atol=1.2)
        index = (body_centres(scene.labelmap)[level] - scene.intensities.grid.origin) / scene.intensities.grid.spacing
        i, j, k = np.rint(index).astype(int)
        assert scene.intensities.values[k - 5:k + 6, j - 5:j + 6, i - 5:i + 6].mean() == pytest.approx(300.0, abs=5.0)
        behind = scene.intensities.values[k, j + 22:j + 27, i - 4:i + 5]
        assert behind.mean() == pytest.approx(35.0, abs=12.0)  # the canal, 22 to 26 mm behind the body's centre
    tips = np.array([[0.0, 38.0, 76.0 - 38.0 * number] for number in range(5)]) + shift
    above = scene.skin.height(tips[:, 0], tips[:, 2]) - tips[:, 1]
    assert above.min() > 14.0 and above.max() < 20.0


def test_three_levels_are_enough_and_two_are_not(tmp_path: Path, capsys) -> None:
    ct, labels = column()
    for last, status in ((22, 0), (21, 2)):
        write_volume(tmp_path / "ct.nrrd", ct)
        write_volume(tmp_path / "labels.nrrd", Volume(np.where(labels.values <= last, labels.values, 0), labels.grid))
        source = Source(labelmap=tmp_path / "labels.nrrd", ct=tmp_path / "ct.nrrd", complete=False)
        if status == 0:
            bones = source.read()
            assert list(body_centres(build_scene(bones.meshes, 0, ct=bones.ct).labelmap)) == ["L1", "L2", "L3"]
            continue
        with pytest.raises(UsxError, match="L1, L2 only; 3 levels are needed"):
            source.read()
    with pytest.raises(UsxError, match="whole spine"):
        Source(labelmap=tmp_path / "labels.nrrd", posture=parse_posture("flexion=5"), complete=False)


def test_the_report_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xray_report, "XraySettings", lambda: SMALL)
    monkeypatch.setattr(xray_report, "device_rows", lambda *_: [])
    assert xray_report.main(["--out", str(tmp_path / "out"), *on_disk(tmp_path)]) == 0
    with (tmp_path / "out" / "xray_report.csv").open() as file:
        rows = {row["what"]: float(row["value"]) for row in csv.DictReader(file)}
    # a cylinder of 40 mm with 300 HU instead of 35: 100 HU as water, 200 HU as mineral at 60 keV
    added = rows["CT: water added by a lumbar body, mean"]
    assert added == pytest.approx(40.0 * (0.065 + 0.2 * 1.332), rel=0.08)
    assert 0.0 < rows["CT: contrast of a body, with scatter"] < rows["CT: contrast of a body, primary"]
    for name in ("xray_from_ct.png", "cbct_from_ct.png"):
        assert (tmp_path / "out" / name).stat().st_size < 300_000


def spoil(folder: Path, what: str) -> None:
    ct, labels = column()
    if what == "nan":
        ct.values[5, 5, 5] = np.nan
    if what == "empty":
        labels.values[:] = 0
    if what == "other unit":
        ct = Volume(ct.values * 0.02, ct.grid)
    if what == "transposed":
        labels = Volume(np.ascontiguousarray(labels.values.transpose(2, 1, 0)),
                        replace(labels.grid, size=labels.grid.size[::-1]))
    if what == "thoracic":
        labels = Volume(np.where(labels.values > 0, labels.values - 10, 0).astype(np.uint8), labels.grid)
    write_volume(folder / "ct.nrrd", ct)
    write_volume(folder / "labels.nrrd", labels)


@pytest.mark.parametrize(("what", "words"), [
    ("nan", "no finite numbers"), ("empty", "empty"), ("other unit", "Hounsfield"), ("transposed", "transposed"),
    ("thoracic", "no lumbar level")])
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
