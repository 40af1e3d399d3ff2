"""Label maps to meshes: any orientation gives the same bones in mm; wrong axes, units and labels are refused."""

import csv
import struct

import numpy as np
import pytest
import SimpleITK as sitk
import trimesh

from usx_common.levels import LEVELS
from usx_common.meshes import Mesh, read_mesh, sample_surface
from usx_common.volumes import Volume, VolumeGrid, read_volume, write_volume
from usx_phantom.import_labelmap import main
from usx_phantom.labelmap_import import edge_share, find_labelmaps, read_labelmap
from usx_phantom.mask_surface import genus_of, mask_surface
from usx_phantom.mesh_import import read_spine
from usx_phantom.overlap import BoneSurface
from usx_phantom.phantom_source import Source
from usx_phantom.scan_files import in_patient_order, read_scan
from usx_phantom.spine import mean_spine
from usx_phantom.voxels import label_meshes

STEP = 2.2


def surface_distance(a, b):
    """Mean symmetric surface distance, mm."""
    one = np.abs(BoneSurface(a).signed_distance(sample_surface(b, 3000, 0))[0]).mean()
    return 0.5 * (one + np.abs(BoneSurface(b).signed_distance(sample_surface(a, 3000, 0))[0]).mean())


@pytest.fixture(scope="module")
def spine():
    return mean_spine(spacing=2.0).meshes


@pytest.fixture(scope="module")
def labels(spine):
    """Labels 20..24 on a grid that is tilted in the scanner, far from its origin, plus a thoracic label."""
    volume = label_meshes(spine, 1.5, margin=6.0)
    values = volume.values.copy()
    values[:3] = 19
    turn = np.linalg.qr(np.eye(3) + 0.05 * np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.sign(np.diag(turn))
    grid = volume.grid
    return Volume(values, VolumeGrid(turn @ grid.origin + (40.0, -150.0, 900.0), grid.spacing, grid.size, turn))


def reordered(volume, order, flips):
    """The same voxels stored with axes permuted and flipped, the affine told accordingly."""
    grid = volume.grid
    values = volume.values.transpose(2, 1, 0).transpose(order)
    direction, spacing = grid.direction[:, order], grid.spacing[list(order)]
    origin = grid.origin.copy()
    for axis, flip in enumerate(flips):
        if flip:
            origin = origin + direction[:, axis] * spacing[axis] * (values.shape[axis] - 1)
            direction = direction * np.where(np.arange(3) == axis, -1.0, 1.0)
            values = np.flip(values, axis)
    return Volume(np.ascontiguousarray(values.transpose(2, 1, 0)),
                  VolumeGrid(origin, spacing, values.shape, direction))


@pytest.fixture(scope="module")
def imported(labels, tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "sub-made_seg-vert_msk.nii.gz"
    write_volume(path, labels)
    return read_labelmap(path, STEP)


def test_meshes_lie_on_the_bones_that_were_drawn(imported, spine, labels):
    assert list(imported.meshes) == list(LEVELS) and imported.missing == ()
    for level, mesh in imported.meshes.items():
        oracle = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        assert oracle.is_watertight and oracle.volume > 0
        assert imported.genus[level] == 1 == genus_of(mesh) == 1 - oracle.euler_number // 2
        turned = spine[level].vertices @ labels.grid.direction.T + (40.0, -150.0, 900.0)
        assert surface_distance(Mesh(turned, spine[level].faces), mesh) < 0.3


@pytest.mark.parametrize(("order", "flips"), [
    ((0, 1, 2), (True, True, False)), ((0, 1, 2), (True, False, False)), ((1, 2, 0), (False, True, True)),
    ((2, 1, 0), (True, False, True)), ((1, 0, 2), (False, False, True))])
def test_any_orientation_gives_the_same_meshes(imported, labels, tmp_path, order, flips):
    """Left-handed affines ((True, False, False) alone) too."""
    path = tmp_path / "again.nrrd"
    write_volume(path, reordered(labels, order, flips))
    again = read_labelmap(path, STEP)
    for level in LEVELS:
        assert np.allclose(again.meshes[level].vertices, imported.meshes[level].vertices, atol=1e-3)
        assert np.array_equal(again.meshes[level].faces, imported.meshes[level].faces)


def test_reordering_against_simpleitk(labels, tmp_path):
    path = tmp_path / "other.nii.gz"
    write_volume(path, reordered(labels, (2, 0, 1), (True, False, False)))
    oracle = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    mine = read_scan(path)
    assert np.array_equal(mine.values, sitk.GetArrayFromImage(oracle))
    assert np.allclose(mine.grid.origin, oracle.GetOrigin(), atol=1e-4)
    assert np.allclose(mine.grid.direction.reshape(-1), oracle.GetDirection(), atol=1e-6)
    assert in_patient_order(mine).grid.size == mine.grid.size


def test_a_ball_comes_back_with_its_radius():
    axes = [np.arange(n) * s for n, s in zip((40, 40, 20), (1.0, 1.0, 2.0), strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    ball = (x - 20) ** 2 + (y - 20) ** 2 + (z - 20) ** 2 < 15.0**2
    loose = ball.copy()
    loose[1, 1, 1] = True
    surface = mask_surface(loose, np.array([1.0, 1.0, 2.0]), 1.0, genus=0)
    radii = np.linalg.norm(surface.mesh.vertices - 20.0, axis=1)
    assert surface.genus == 0 and 0 < surface.dropped < 1e-3
    assert abs(radii.mean() - 15.0) < 0.15 and radii.std() < 0.25


def test_pinholes_are_closed_but_canals_stay():
    ring = np.zeros((40, 40, 12), bool)
    ring[2:38, 2:38, 2:10] = True
    ring[12:28, 12:28] = False  # the canal
    ring[6, 6] = False  # a pinhole
    assert mask_surface(ring, np.ones(3), 1.0).genus == 1


def transposed(v):
    return Volume(np.ascontiguousarray(v.values.transpose(1, 0, 2)),
                  VolumeGrid(v.grid.origin, v.grid.spacing, tuple(np.array(v.values.shape)[[1, 0, 2]][::-1]),
                             v.grid.direction))


def with_values(change):
    return lambda v: Volume(change(v.values.copy()), v.grid)


def with_spacing(factor):
    return lambda v: Volume(v.values, VolumeGrid(v.grid.origin, v.grid.spacing * factor, v.grid.size,
                                                 v.grid.direction))


def without(label):
    def change(values):
        values[values == label] = 0
        return values
    return with_values(change)


def swapped(values):
    return np.where(values == 20, 24, np.where(values == 24, 20, values)).astype(np.uint8)


def speck(values):
    where = np.argwhere(values == 22)[50:]
    values[tuple(where.T)] = 0
    return values


@pytest.mark.parametrize(("spoil", "message"), [
    (with_values(np.zeros_like), "is empty"),
    (with_values(lambda v: np.minimum(v, 5)), "no lumbar level .* it holds 5"),
    (with_values(lambda v: v + np.float32(0.5)), "not whole numbers"),
    (with_values(lambda v: np.flip(v, 0).copy()), "z must point to the head"),
    (with_values(lambda v: np.flip(v, 1).copy()), "spinous process of L1 does not point to the back"),
    (with_values(swapped), "below"), (transposed, "transposed"), (without(23), "lacks L4"),
    (with_values(speck), "L3 has 50 voxels"), (with_spacing(1e-3), "convert it to mm"),
    (with_spacing([1.0, 1.0, 0.3]), "L1 measures .* from head to foot"),
    (with_spacing([2.5, 1.0, 1.0]), "L1 measures .* from left to right"),
])
def test_wrong_label_maps_are_refused_by_name(labels, tmp_path, spoil, message):
    path = tmp_path / "wrong.nrrd"
    write_volume(path, spoil(labels))
    with pytest.raises(ValueError, match=message) as caught:
        read_labelmap(path, STEP, complete=True)
    assert "wrong.nrrd" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("patches", "message"), [
    ({252: ("h", 0), 254: ("h", 0)}, "says nothing about its axes"),
    ({123: ("B", 1)}, "in metres"), ({280: ("f", -1.4), 300: ("f", 3.0)}, "two affines .* differ by"),
    ({42: ("h", 30000), 44: ("h", 30000), 46: ("h", 30000)}, "crop or coarsen"),
    ({0: ("i", 17)}, "no NIfTI-1 file"),
])
def test_headers_that_mislead_are_refused(labels, tmp_path, patches, message):
    path = tmp_path / "header.nii"
    write_volume(path, labels)
    data = bytearray(path.read_bytes())
    for offset, (kind, value) in patches.items():
        struct.pack_into("<" + kind, data, offset, value)
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=message):
        read_labelmap(path, STEP)


def cropped(labels, millimetres):
    """Without the lowest `millimetres` of L5."""
    first = int(np.nonzero(labels.values == 24)[0].min()) + round(millimetres / 1.5)
    return Volume(labels.values[first:].copy(), VolumeGrid(
        labels.grid.origin + 1.5 * first * labels.grid.direction[:, 2], labels.grid.spacing,
        (*labels.grid.size[:2], labels.grid.size[2] - first), labels.grid.direction))


def test_levels_at_the_edge_and_missing_ones_are_named(labels, imported, tmp_path):
    tips = cropped(labels, 6.0)
    tips.values[tips.values == 20] = 0
    write_volume(tmp_path / "tips.nrrd", tips)
    spine = read_labelmap(tmp_path / "tips.nrrd", STEP)
    assert spine.at_edge == ("L5",) and spine.missing == ("L1",) and spine.cut == ()
    assert spine.edge_note == "L5 at the edge of the volume, so tips may be missing" and imported.edge_note == ""


def test_a_cut_vertebra_is_no_truth(labels, tmp_path, capsys):
    """The lowest 21 of 52 mm of L5 are missing: refused for a phantom, left out when importing."""
    path = tmp_path / "cut.nrrd"
    write_volume(path, cropped(labels, 21.0))
    with pytest.raises(ValueError, match=r"cut\.nrrd: the edge of the volume cuts L5 \(there it is \d\d% of"):
        Source(labelmap=path).read()
    assert main(["--in", str(path), "--out", str(tmp_path / "out"), "--step", "2.2"]) == 0
    assert "L5 cut by the edge of the volume and left out" in capsys.readouterr().out
    assert sorted(p.stem for p in (tmp_path / "out" / "cut").iterdir()) == ["L1", "L2", "L3", "L4"]


def test_sections_at_the_edge_are_measured_along_every_axis():
    for axis in range(3):
        ball = np.indices((21, 21, 21))
        ball = ((ball - 10) ** 2).sum(0) <= 9**2
        assert edge_share(ball) == 0.0
        half = ball.take(range(10, 21), axis)
        assert edge_share(half) == edge_share(np.flip(half, axis)) == 1.0
        assert edge_share(ball.take(range(1, 21), axis)) == 1 / 253  # its outermost voxel; discs of 253 in the middle
    assert edge_share(np.zeros((3, 3, 3), bool)) == 0.0


def test_fingerprints_see_voxels_in_a_file_beside_the_header(labels, tmp_path):
    def fingerprint(suffix, values):
        path = tmp_path / f"map{suffix}"
        image = sitk.GetImageFromArray(values)
        image.SetSpacing([1.5, 1.5, 1.5])
        sitk.WriteImage(image, str(path))
        return Source(labelmap=path).describe(1)["sha256"]

    changed = labels.values.copy()
    changed[tuple(np.argwhere(changed == 22)[0])] = 0
    for suffix in (".mhd", ".mha", ".nrrd"):
        assert fingerprint(suffix, labels.values) == fingerprint(suffix, labels.values)
        assert fingerprint(suffix, labels.values) != fingerprint(suffix, changed), suffix
    for path in tmp_path.glob("map.*raw"):
        path.unlink()
    with pytest.raises(ValueError, match=r"map\.mhd"):
        Source(labelmap=tmp_path / "map.mhd").describe(1)


def test_command_compares_with_other_meshes(labels, tmp_path, capsys):
    write_volume(tmp_path / "map.nrrd", labels)
    arguments = ["--in", str(tmp_path / "map.nrrd"), "--out", str(tmp_path / "out"), "--step", "2.2", "--axes", "LPS"]
    assert main(arguments) == 0
    assert main([*arguments, "--compare", str(tmp_path / "out" / "map")]) == 0
    assert "mm: L1 0.00, L2 0.00, L3 0.00, L4 0.00, L5 0.00" in capsys.readouterr().out
    assert main([*arguments, "--compare", str(tmp_path / "nothing")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_command_writes_folders_that_read_spine_takes(labels, imported, tmp_path, capsys):
    bids = tmp_path / "bids" / "derivatives" / "sub-a1"
    bids.mkdir(parents=True)
    write_volume(bids / "sub-a1_dir-ax_seg-vert_msk.nii.gz", labels)
    write_volume(bids / "sub-b2_split-lumbar_seg-vert_msk.nii.gz", without(24)(labels))
    assert list(find_labelmaps(tmp_path / "bids")) == ["sub-a1", "sub-b2_split-lumbar"]
    out = tmp_path / "out"
    assert main(["--in", str(tmp_path / "bids"), "--out", str(out), "--step", "2.2", "--complete", "--quiet"]) == 0
    assert "lacks L5" in capsys.readouterr().out
    assert [p.name for p in out.iterdir() if p.is_dir()] == ["sub-a1"]
    with (out / "import.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["level"] for row in rows] == list(LEVELS) and {row["genus"] for row in rows} == {"1"}
    read = read_spine(out / "sub-a1", "RAS")
    shift = read["L3"].vertices.mean(0) - imported.meshes["L3"].vertices.mean(0)
    for level in LEVELS:
        assert surface_distance(read[level], Mesh(imported.meshes[level].vertices + shift,
                                                  imported.meshes[level].faces)) < 0.01


@pytest.mark.parametrize(("arguments", "message"), [
    (["--in", "/nowhere"], "does not exist"), (["--in", "EMPTY"], "holds no"),
    (["--in", "EMPTY/x.png"], "unknown kind"), (["--in", "MAP", "--step", "nan"], "mesh step nan")])
def test_command_refuses_in_one_line(labels, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    write_volume(tmp_path / "map.nrrd", labels)
    where = {"EMPTY": tmp_path / "empty", "MAP": tmp_path / "map.nrrd", "EMPTY/x.png": tmp_path / "empty" / "x.png"}
    if arguments[1] == "EMPTY/x.png":
        where["EMPTY/x.png"].write_bytes(b"no volume")
    assert main([*(str(where.get(a, a)) for a in arguments), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.real_data
@pytest.mark.parametrize("subject", ["verse004"])
def test_real_label_maps_give_the_supplied_meshes(usx_data, subject):
    """Those were made from the same label maps by other software."""
    folder = usx_data / "shapes" / subject
    spine = read_labelmap(next(folder.glob("labelmap*.nii.gz")), complete=True)
    for level, mesh in spine.meshes.items():
        ras = read_mesh(folder / f"{level}.ply")
        assert surface_distance(ras.transformed(np.diag([-1.0, -1.0, 1.0, 1.0])), mesh) < 0.25
    assert set(spine.genus.values()) <= {1, 2}


@pytest.mark.real_data
def test_a_real_spine_whose_tips_touch_the_edge_stays_usable(usx_data):
    path = usx_data / "ct" / "sub-verse008_seg-vert_msk.nii.gz"
    notes = Source(labelmap=path).read().notes
    assert notes == (f"{path}: L4, L5 at the edge of the volume, so tips may be missing",)


@pytest.mark.real_data
def test_real_masks_are_read_with_their_affine(usx_data):
    path = usx_data / "ct" / "sub-verse008_seg-vert_msk.nii.gz"
    labels = read_scan(path)
    image = sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(image)
    index = np.argwhere(values == 22)[100][::-1]
    point = np.array(image.TransformIndexToPhysicalPoint([int(i) for i in index]))
    mine = np.linalg.inv(labels.grid.index_to_world) @ [*point, 1.0]
    assert labels.values[tuple(np.rint(mine[:3]).astype(int)[::-1])] == 22
    assert read_volume(path).values.sum() == labels.values.sum()
