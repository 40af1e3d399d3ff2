"""CT scans as a phantom's source: values kept where they were, skin found where it shows, other scans refused."""

from dataclasses import replace

import numpy as np
import pytest

from usx_common.levels import LEVELS
from usx_common.meshes import sample_surface
from usx_common.volumes import Volume, VolumeGrid, write_volume
from usx_phantom import cbct, ct_scan, scan_files, xray
from usx_phantom.ct_density import ct_part
from usx_phantom.ct_scan import FAT, LEAST_CLEARANCE, SOFT_TISSUE, UNSEEN, filled, read_ct, skin_of
from usx_phantom.labelmap_import import read_labelmap
from usx_phantom.make_phantom import main
from usx_phantom.phantom_scene import build_scene
from usx_phantom.phantom_source import Source
from usx_phantom.posture import parse_posture
from usx_phantom.scene import SkinSurface
from usx_phantom.spine import mean_spine
from usx_phantom.voxels import label_meshes
from usx_phantom.xray_settings import XraySettings


@pytest.fixture(scope="module")
def spine():
    return mean_spine(spacing=2.0).meshes


@pytest.fixture(scope="module")
def labels(spine):
    return label_meshes(spine, 2.0, margin=25.0)


def true_skin(spine, clearance=18.0):
    tips = np.array([mesh.vertices[mesh.vertices[:, 1].argmax()] for mesh in spine.values()])
    return SkinSurface(float(tips[:, 0].mean()), float(tips[:, 2].mean()),
                       (float(tips[:, 1].max()) + clearance, 0.05, 3e-4), 1.0 / 900.0)


def scan_of(labels, skin):
    """HU: 350 in bone, 40 in the trunk, -1000 behind the skin; a table (100 HU) 8 mm behind that."""
    grid = labels.grid
    z, y, x = (np.arange(n) * s + o for n, s, o in zip(grid.size[::-1], grid.spacing[::-1], grid.origin[::-1],
                                                       strict=True))
    depth = skin.height(x[None, None, :], z[:, None, None]) - y[None, :, None]
    values = np.where(depth > 0, 40.0, np.where(depth < -12.0, 100.0, -1000.0))
    return Volume(np.where(labels.values > 0, 350.0, values).astype(np.float32), grid)


@pytest.fixture(scope="module")
def files(labels, spine, tmp_path_factory):
    """A label map and its CT, stored with axes turned over and a small tilt."""
    folder = tmp_path_factory.mktemp("ct")
    scan = scan_of(labels, true_skin(spine))
    grid = labels.grid
    turn = np.linalg.qr(np.eye(3) + 0.03 * np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.sign(np.diag(turn))
    end = grid.origin + [grid.spacing[0] * (grid.size[0] - 1), 0.0, 0.0]
    stored = VolumeGrid(turn @ end + (10.0, -200.0, 700.0), grid.spacing, grid.size, turn @ np.diag([-1.0, 1.0, 1.0]))
    for name, volume in (("labels", labels), ("scan", scan)):
        write_volume(folder / f"{name}.nii.gz", Volume(np.ascontiguousarray(volume.values[:, :, ::-1]), stored))
    return folder


@pytest.fixture(scope="module")
def patient(files):
    bones = Source(labelmap=files / "labels.nii.gz", ct=files / "scan.nii.gz").read()
    return bones.meshes, bones.ct


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """CT voxels of 2 mm: an eighth of the work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ct_scan, "STEP", 2.0)
        yield


def test_ct_and_bones_lie_on_each_other(patient):
    meshes, ct = patient
    assert np.array_equal(ct.grid.direction, np.eye(3)) and ct.values.dtype == np.int16
    for level in LEVELS:
        points = sample_surface(meshes[level], 2000, 0)
        index = np.rint((points - ct.grid.origin) / ct.grid.spacing).astype(int)
        values = ct.values[tuple(index.T[::-1])]
        assert 120 < np.median(values) < 270  # half way between bone and soft tissue
    assert np.abs(meshes["L3"].vertices.mean(0)).max() < 15.0
    assert (ct.values == UNSEEN).any()


def test_skin_is_read_off_the_ct(patient, labels, spine):
    meshes, ct = patient
    skin = skin_of(ct, meshes)
    straight = skin_of(scan_of(labels, true_skin(spine)), spine)
    z = np.linspace(-70.0, 70.0, 9)
    expected = true_skin(spine).height(np.zeros(9), z)
    assert np.abs(straight.height(np.zeros(9), z) - expected).max() < 1.0
    assert straight.lateral_curvature == pytest.approx(1 / 900, rel=0.35)  # voxels of 2 mm
    assert skin is not None and abs(skin.coefficients[2] - 3e-4) < 1e-4
    scene = build_scene(meshes, 0, spacing=3.0, ct=ct)
    assert scene.skin == skin
    values = scene.intensities.values
    assert values.min() > -401 and {FAT, SOFT_TISSUE} <= set(np.unique(values))
    assert (values == 350).sum() > 0.5 * (ct.values == 350).sum()


def test_skin_pressed_flat_is_lifted_and_a_cropped_one_is_not_believed(labels, spine):
    near = scan_of(labels, true_skin(spine, clearance=6.0))
    skin = skin_of(near, spine)
    bones = np.concatenate([mesh.vertices for mesh in spine.values()])
    assert (skin.height(bones[:, 0], bones[:, 2]) - bones[:, 1]).min() == pytest.approx(LEAST_CLEARANCE, abs=1e-6)
    assert skin_of(scan_of(labels, true_skin(spine, clearance=90.0)), spine) is None
    lungs = near.values.copy()
    lungs[:, 10:30, 10:30] = -800
    assert (filled(Volume(lungs.astype(np.int16), labels.grid)).values == -800).sum() == lungs.shape[0] * 400


def test_nothing_but_air_is_seen_behind_the_skin(spine):
    """Air and table behind the back are filled with fat for the ultrasound; no other image may show it."""
    scan = scan_of(label_meshes(spine, 2.0, margin=45.0), true_skin(spine))
    noisy = scan.values + np.random.default_rng(0).normal(0.0, 25.0, scan.values.shape)
    scan = Volume(np.rint(noisy).astype(np.int16), scan.grid)
    scene = build_scene(spine, 0, spacing=2.0, ct=scan)
    settings = XraySettings(columns=160, rows=200, spacing=2.0, gas=0, mottle=0.0)
    path, pose = xray.line_integrals(scene, settings, 0)
    trunk, _ = xray.line_integrals(replace(scene, intensities=None), settings, 0)
    z = spine["L3"].vertices[:, 2].mean()
    x, y = scene.skin.x0, float(scene.skin.height(scene.skin.x0, z))
    points = np.array([[x, y + beyond, z] for beyond in (2.0, 10.0, 20.0)])
    columns, rows = np.rint(xray.Radiograph(path, pose, settings, 0).project(points)).astype(int).T
    assert (path[rows, columns] - trunk[rows, columns]).max() < 0.02  # the fat added 2.5 where the trunk ends
    assert path[rows[2], columns[2]] == 0.0
    assert ct_part(scene, settings.material).soft == pytest.approx(40.0, abs=1.5)  # that of the body alone
    volume = cbct.simulate(scene, cbct.CbctSettings(spacing=2.0, blur=0.0, noise=0.0, cupping=0.0), 0)
    index = np.rint((points[1:] - volume.grid.origin) / volume.grid.spacing).astype(int)
    assert (volume.values[tuple(index.T[::-1])] == -1000).all()


def test_a_posture_bends_bones_and_ct_alike(files, patient):
    source = Source(labelmap=files / "labels.nii.gz", ct=files / "scan.nii.gz", posture=parse_posture("flexion=15"))
    bent = source.read()
    assert source.describe(1)["posture"] == {"flexion": 15.0} and bent.notes == ()
    top = bent.meshes["L1"].vertices.mean(0) - patient[0]["L1"].vertices.mean(0)
    assert top[1] < -2.0  # forward
    points = sample_surface(bent.meshes["L1"], 2000, 0)
    index = np.rint((points - bent.ct.grid.origin) / bent.ct.grid.spacing).astype(int)
    inside = ((index >= 0) & (index < np.array(bent.ct.grid.size))).all(1)
    assert 120 < np.median(bent.ct.values[tuple(index[inside].T[::-1])]) < 270


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda v: Volume(v.values * 0.01, v.grid), "a CT in Hounsfield units has"),
    (lambda v: Volume(-v.values, v.grid), "label map"),
    (lambda v: Volume(v.values, VolumeGrid(v.grid.origin + (0, 0, 90.0), v.grid.spacing, v.grid.size)),
     "of the labelled bone"),
    (lambda v: Volume(np.roll(v.values, 30, axis=1), v.grid), "around it"),
    (lambda v: Volume(np.where(v.values > 300, np.nan, v.values), v.grid), "no finite numbers"),
])
def test_other_scans_are_refused(labels, spine, tmp_path, spoil, message):
    path = tmp_path / "scan.nrrd"
    write_volume(path, spoil(scan_of(labels, true_skin(spine))))
    with pytest.raises(ValueError, match=message) as caught:
        read_ct(path, labels)
    assert "scan.nrrd" in str(caught.value)


def test_only_what_lies_near_the_labelled_bones_is_read(labels, spine, tmp_path):
    """A scan of the whole trunk gives what one cut close gives; what is far away, NaN here, is not looked at."""
    path = tmp_path / "scan.nrrd"
    scan = scan_of(labels, true_skin(spine))
    write_volume(path, scan)
    near = read_ct(path, labels)
    wide = Volume(np.pad(scan.values, 50, constant_values=40.0),
                  VolumeGrid(labels.grid.origin - 100.0, labels.grid.spacing, tuple(n + 100 for n in labels.grid.size)))
    wide.values[:, :, 0] = np.nan
    write_volume(path, wide)
    far = read_ct(path, labels)
    z, y, x = np.nonzero(labels.values)
    bone = np.stack([x, y, z], -1) * labels.grid.spacing + labels.grid.origin
    extent = np.ptp(bone, axis=0) + 2.0 * ct_scan.MARGIN
    assert (np.abs(np.array(far.grid.size) * ct_scan.STEP - extent) <= 4.0 * ct_scan.STEP).all()
    first = np.rint((near.grid.origin - far.grid.origin) / ct_scan.STEP).astype(int)
    part = far.values[tuple(slice(a, a + n) for a, n in zip(first[::-1], near.values.shape, strict=True))]
    known = near.values > UNSEEN
    assert (part[known] == near.values[known]).all()


def test_a_label_map_of_a_huge_scan_is_refused_before_it_is_read(labels, tmp_path, monkeypatch):
    write_volume(tmp_path / "labels.nrrd", labels)
    assert scan_files.MOST_VOXELS <= 200_000_000
    monkeypatch.setattr(scan_files, "MOST_VOXELS", labels.values.size - 1)
    monkeypatch.setattr(scan_files, "read_volume", lambda path: pytest.fail("it was read"))
    with pytest.raises(ValueError, match="crop or coarsen"):
        scan_files.read_scan(tmp_path / "labels.nrrd")


@pytest.mark.parametrize(("where", "error", "words"), [
    ("scan_files.in_patient_order", MemoryError(), "labels.nii.gz needs more memory than there is"),
    ("ct_scan.resampled", RuntimeError("ITK ERROR:\nFailed to allocate memory for image."),
     "scan.nii.gz cannot be used: Failed to allocate memory"),
    ("ct_scan.filled", MemoryError(), "the CT needs more memory than there is")])
def test_running_out_of_memory_is_told_in_one_line(files, tmp_path, capsys, monkeypatch, where, error, words):
    def fail(*_):
        raise error

    monkeypatch.setattr(f"usx_phantom.{where}", fail)
    arguments = ["--labelmap", str(files / "labels.nii.gz"), "--ct", str(files / "scan.nii.gz")]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--quiet"]) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1


def test_a_part_of_a_turned_volume_stays_where_it_was():
    turn = np.linalg.qr(np.eye(3) + 0.3 * np.random.default_rng(0).normal(size=(3, 3)))[0]
    values = np.arange(20 * 30 * 40).reshape(40, 30, 20)
    whole = Volume(values, VolumeGrid((5.0, -7.0, 11.0), (1.0, 2.0, 1.5), (20, 30, 40), turn))
    middle = (whole.grid.index_to_world @ (10.0, 15.0, 20.0, 1.0))[:3]
    part = scan_files.cropped(whole, middle - 4.0, middle + 4.0)
    assert part.values.size < 0.1 * values.size
    for index in np.ndindex(part.values.shape):
        place = part.grid.index_to_world @ (*index[::-1], 1.0)
        there = np.rint(np.linalg.inv(whole.grid.index_to_world) @ place)[:3].astype(int)
        assert part.values[index] == values[tuple(there[::-1])]
    low, high = scan_files.box_of(np.isin(values, part.values), whole.grid)
    assert (low <= middle - 3.9).all() and (high >= middle + 3.9).all()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--ct", "x.nii.gz"], "give --labelmap too"),
    (["--labelmap", "x.nii.gz", "--meshes", "x"], "give one"),
    (["--labelmap", "/nowhere.nii.gz"], "does not exist"), (["--posture", "flexoin=3"], "'flexoin' is unknown"),
    (["--posture", "flexion=far"], "write flexion=DEGREES"), (["--posture", "scoliosis=80"], "must be -60 to 60"),
    (["--posture", "flexion=1,flexion=2"], "flexion twice"),
])
def test_command_refuses_in_one_line(tmp_path, capsys, arguments, message):
    assert main([*arguments, "--out", str(tmp_path / "out"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.real_data
def test_a_real_ct_becomes_a_scene(usx_data):
    """VerSe 008: cropped around the spine, skin seen over the upper half only, so the smooth back is taken."""
    source = Source(labelmap=usx_data / "ct" / "sub-verse008_seg-vert_msk.nii.gz",
                    ct=usx_data / "ct" / "sub-verse008_ct.nii.gz")
    bones = source.read()
    assert skin_of(bones.ct, bones.meshes) is None
    scene = build_scene(bones.meshes, 0, ct=bones.ct)
    grid = scene.intensities.grid
    z, y, x = np.nonzero(scene.labelmap.values == 22)
    points = np.stack([x, y, z], -1) * scene.labelmap.grid.spacing + scene.labelmap.grid.origin
    index = np.rint((points - grid.origin) / grid.spacing).astype(int)
    assert ((index >= 0) & (index < np.array(grid.size))).all()
    assert 150 < scene.intensities.values[tuple(index.T[::-1])].mean() < 500
    assert source.describe(3)["kind"] == "ct" and len(source.describe(3)["sha256"]) == 64


@pytest.mark.real_data
def test_a_real_label_map_that_lacks_levels_is_refused(usx_data):
    with pytest.raises(ValueError, match="lacks L4, L5"):
        read_labelmap(usx_data / "ct" / "sub-verse007_seg-vert_msk.nii.gz", complete=True)
