"""Compounding against plain numpy, its invariances, its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from usx_common.errors import UsxError
from usx_compounding import cells as cell_reading
from usx_compounding.cells import CellKind
from usx_compounding.compounding import Compounder, CompoundingSettings, Frames, filled_volume, make_engine
from usx_compounding.fixed_point import quantise
from usx_compounding.hole_filling import fill_holes
from usx_compounding.mask import Fan, MaskSettings, make_mask, outline, run_corners, run_pixels, to_runs
from usx_compounding.region import Lattice, Region, VolumeTooLarge, check_memory, scout

ROWS, COLUMNS = 23, 31
KINDS = [CellKind(d, c) for d in ("nearest", "linear") for c in ("mean", "maximum", "latest")]
WHOLE = to_runs(np.ones((ROWS, COLUMNS), dtype=bool))


def sweep(count=6, seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, ROWS, COLUMNS), dtype=np.uint8)
    places = np.tile(np.eye(4), (count, 1, 1))
    for number in range(count):
        rotation = Rotation.from_rotvec(random.normal(0, 0.4, 3)).as_matrix()
        shear = np.eye(3) + random.normal(0, 0.05, (3, 3))
        places[number, :3, :3] = rotation @ shear * 0.31
        places[number, :3, 3] = random.normal(0, 2, 3) + [0, 0, 0.7 * number]
    return Frames(images, places, random.permutation(count).astype(np.int64), np.arange(count, dtype=np.int64))


def part(frames, index):
    index = np.asarray(index)
    return Frames(frames.images[index], frames.image_to_world[index], frames.stamps[index], frames.sequences[index])


def plain(frames, kind, lattice, region, runs=WHOLE, threshold=0):
    """(mean, weight) by Python loops over pixels sorted in time; weights of linear rounded to 1/256 as promised."""
    nx, ny, nz = region.size
    total, weight, best = np.zeros((nz, ny, nx)), np.zeros((nz, ny, nx)), {}
    columns, rows = run_pixels(runs)
    for f in range(len(frames.images)):
        to_voxel = lattice.world_to_lattice @ frames.image_to_world[f]
        for c, r in zip(columns, rows, strict=True):
            value = int(frames.images[f, r, c])
            if value < threshold:
                continue
            q = (to_voxel @ [c, r, 0, 1])[:3] - region.low
            for corner, w in corners(q, kind.distribution):
                if not all(0 <= i < n for i, n in zip(corner, region.size, strict=True)):
                    continue
                x, y, z = corner
                key = {"mean": None, "maximum": (value,), "latest": (frames.stamps[f], frames.sequences[f], r, c)}
                order = key[kind.combination]
                if order is None:
                    total[z, y, x] += w * value
                    weight[z, y, x] += w
                elif (z, y, x) not in best or order > best[z, y, x][0]:
                    best[z, y, x] = (order, value)
    for place, (_, value) in best.items():
        total[place], weight[place] = value, 1
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0), weight


def corners(q, distribution):
    if distribution == "nearest":
        return [(tuple(np.floor(q + 0.5).astype(int)), 1.0)]
    fine = np.floor(q * 256 + 0.5).astype(int)
    base, fraction = fine >> 8, (fine & 255) / 256
    found = []
    for dz in (0, 1):
        for dy in (0, 1):
            for dx in (0, 1):
                w = np.prod([f if d else 1 - f for f, d in zip(fraction, (dx, dy, dz), strict=True)])
                if w > 0:
                    found.append((tuple(base + [dx, dy, dz]), w))
    return found


def build(frames, kind, engine=None, region=None, lattice=None, runs=WHOLE, threshold=0, batches=None):
    found, box = scout(frames.image_to_world, run_corners(runs), 1.0)
    lattice = lattice or found
    compounder = Compounder(CompoundingSettings(kind, threshold), lattice, runs, engine or make_engine("numba", 1),
                            box if region is None else region)
    for batch in batches or [np.arange(len(frames.images))]:
        compounder.add(part(frames, batch))
    return compounder


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("threshold", [0, 90])
def test_equals_plain_loops(kind, threshold):
    frames = sweep(3)
    mask = make_mask(MaskSettings("fan", fan=Fan(15, -12, 14, 33, -25, 25)), ROWS, COLUMNS)
    compounder = build(frames, kind, threshold=threshold, runs=to_runs(mask))
    mean, weight = plain(frames, kind, compounder.lattice, compounder.region, to_runs(mask), threshold)
    result = compounder.read()
    np.testing.assert_allclose(result.weight, weight, atol=1e-9)
    np.testing.assert_allclose(result.mean, mean, atol=1e-9)
    assert (compounder.volume().values == np.where(weight > 0, np.floor(mean + 0.5 + 1e-12), 0)).all()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_order_batches_threads_growth_and_torch_change_nothing(kind):
    frames = sweep(7, seed=3)
    expected = build(frames, kind)
    cells, box = expected.cells().copy(), expected.region
    shuffled = [[6, 2], [0], [5, 1, 4], [3]]
    for engine in (make_engine("numba", 2), make_engine("numba", 5), make_engine("torch", device="cpu")):
        assert np.array_equal(build(frames, kind, engine, batches=shuffled).cells(), cells), engine
        growing = Compounder(CompoundingSettings(kind), expected.lattice, WHOLE, engine)
        for batch in shuffled:
            growing.add(part(frames, batch))
        around = np.zeros_like(cells)
        around[growing.region.slices_in(box)] = growing.cells()
        assert np.array_equal(around, cells), engine
        engine.close()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_pixels_outside_a_given_region_are_left_out(kind):
    frames = sweep(4, seed=9)
    lattice, box = scout(frames.image_to_world, run_corners(WHOLE), 1.0)
    small = Region((3, 2, 1), (box.high[0] - 4, box.high[1] - 2, box.high[2] - 3))
    for engine in (make_engine("numba", 2), make_engine("torch", device="cpu")):
        result = build(frames, kind, engine, small, lattice).cells()
        if kind.distribution == "nearest":
            whole = build(frames, kind, None, box, lattice).cells()
            assert np.array_equal(result, whole[small.slices_in(box)])
        else:
            assert np.array_equal(result, build(frames, kind, None, small, lattice).cells())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 4))
def test_two_halves_of_a_sweep_make_the_whole(seed, cut):
    frames = sweep(5, seed)
    whole = build(frames, CellKind("linear", "mean")).cells()
    halves = [build(part(frames, index), CellKind("linear", "mean"), region=build(frames, KINDS[0]).region,
                    lattice=build(frames, KINDS[0]).lattice).cells() for index in (range(cut), range(cut, 5))]
    assert np.array_equal(halves[0] + halves[1], whole)


def test_a_frame_on_the_voxels_is_copied():
    image = np.random.default_rng(2).integers(0, 256, (1, ROWS, COLUMNS), dtype=np.uint8)
    for kind in KINDS:
        compounder = Compounder(CompoundingSettings(kind), Lattice(np.eye(4), 1.0), WHOLE, make_engine("numba", 2),
                                Region((0, 0, 0), (COLUMNS + 1, ROWS + 1, 2)))
        compounder.add(Frames.in_order(image, np.eye(4)[None]))
        assert np.array_equal(compounder.volume().values[0, :ROWS, :COLUMNS], image[0]), kind


def test_rounding_of_the_mean_is_half_up():
    frames = Frames.in_order(np.array([[[1]], [[2]]], dtype=np.uint8), np.tile(np.eye(4), (2, 1, 1)))
    compounder = build(frames, CellKind("nearest", "mean"), runs=to_runs(np.ones((1, 1), dtype=bool)))
    assert compounder.volume().values.max() == 2 and compounder.read().mean.max() == 1.5


# -- memory and limits --------------------------------------------------------------------------------------------

def test_the_memory_bound_is_checked_before_anything_is_taken():
    class NoMemory:
        def allocate(self, size, kind):
            raise AssertionError("allocated")

    with pytest.raises(VolumeTooLarge) as told:
        Compounder(CompoundingSettings(CellKind("nearest", "mean")), Lattice(np.eye(4), 0.06), WHOLE, NoMemory(),
                   Region((0, 0, 0), (7350, 7350, 7350)))
    words = str(told.value)
    assert "7350 x 7350 x 7350" in words and "2.00 GiB" in words and "GiB, the limit" in words
    fitting = float(words.split("a spacing of ")[1].split(" mm")[0])
    shrunk = Region((0, 0, 0), tuple(int(np.ceil(7350 * 0.06 / fitting)) for _ in range(3)))
    check_memory(shrunk, 8, 2 * 2**30, fitting)  # the spacing that it names does fit
    assert fitting < 0.71


def test_a_frame_that_does_not_fit_leaves_the_volume_as_it_was():
    frames = sweep(2)
    far = frames.image_to_world.copy()
    far[1, :3, 3] += 500
    compounder = Compounder(CompoundingSettings(KINDS[0], memory_limit_bytes=2**21), Lattice(np.eye(4), 1.0), WHOLE,
                            make_engine("numba", 1))
    compounder.add(part(frames, [0]))
    before, region = compounder.cells().copy(), compounder.region
    with pytest.raises(VolumeTooLarge):
        compounder.add(Frames(frames.images[1:], far[1:], frames.stamps[1:], frames.sequences[1:]))
    assert np.array_equal(compounder.cells(), before) and compounder.region == region


def test_a_volume_grows_up_to_the_limit_itself():
    frames = sweep(12)
    frames = Frames(frames.images, frames.image_to_world.copy(), frames.stamps, frames.sequences)
    frames.image_to_world[:, 2, 3] += np.arange(12) * 9.0
    free = Compounder(CompoundingSettings(KINDS[0]), Lattice(np.eye(4), 1.0), WHOLE, make_engine("numba", 1))
    for k in range(12):
        free.add(part(frames, [k]))
    exact = free.region.voxels * KINDS[0].bytes_per_voxel
    tight = Compounder(CompoundingSettings(KINDS[0], memory_limit_bytes=exact), Lattice(np.eye(4), 1.0), WHOLE,
                       make_engine("numba", 1))
    for k in range(12):
        tight.add(part(frames, [k]))
    assert np.array_equal(tight.cells(), free.cells()) and tight.bytes_held == exact


def test_moved_cells_are_given_back():
    engine, kind = make_engine("numba", 1), CellKind("nearest", "mean")
    old, new = engine.allocate((64, 64, 256), kind), engine.allocate((70, 66, 300), kind)
    old[3:250, 2:60, 5:] = 7
    part_of_old, there = np.s_[3:250, 2:60, 5:64], np.s_[10:257, 0:58, 1:60]
    engine.move(old, part_of_old, new, there)
    assert (new[there] == 7).all() and new.sum() == 7 * 247 * 58 * 59
    assert not old[3:249].any()  # pages that were returned read as zeros


def test_sums_cannot_overflow_unseen():
    frames = sweep(1)
    compounder = build(frames, CellKind("nearest", "mean"))
    compounder._headroom = 10  # as after very many frames: the cells are looked at, and there is room
    compounder.add(frames)
    compounder._cells[...] = (2**27 - 1) << cell_reading.COUNT_SHIFT
    compounder._headroom = 10
    with pytest.raises(UsxError, match="overflow"):
        compounder.add(frames)


@pytest.mark.parametrize(("images", "words"), [
    (np.zeros((1, 4, 4), dtype=np.uint16), "8-bit"), (np.zeros((4, 4), dtype=np.uint8), "8-bit")])
def test_other_images_are_refused(images, words):
    compounder = Compounder(CompoundingSettings(), Lattice(np.eye(4), 1.0), to_runs(np.ones((4, 4), dtype=bool)),
                            make_engine("numba", 1))
    with pytest.raises(UsxError, match=words):
        compounder.add(Frames.in_order(images, np.eye(4)[None]))


def test_places_out_of_all_reason_are_refused():
    for bad in (np.full((1, 4, 4), np.nan), np.diag([1e12, 1, 1, 1])[None]):
        with pytest.raises(UsxError, match="check calibration"):
            quantise(bad, COLUMNS, ROWS)


@pytest.mark.parametrize("make", [
    lambda: CellKind("cubic", "mean"), lambda: CellKind("nearest", "median"), lambda: make_engine("abacus"),
    lambda: make_engine("numba", 0), lambda: make_engine("torch", device="quantum:3"), lambda: Lattice(np.eye(4), 0.0),
    lambda: Lattice(np.diag([1.0, 1, -1, 1]), 1.0), lambda: CompoundingSettings(rejection_threshold=256),
    lambda: scout(np.empty((0, 4, 4)), np.zeros((4, 2), dtype=int), 1.0)])
def test_senseless_settings_are_refused(make):
    with pytest.raises(UsxError):
        make()


# -- masks --------------------------------------------------------------------------------------------------------

def test_runs_tell_the_mask():
    mask = np.random.default_rng(0).random((17, 19)) > 0.4
    runs = to_runs(mask)
    again = np.zeros_like(mask)
    for row, first, last in runs:
        assert not again[row, first:last].any()
        again[row, first:last] = True
    assert np.array_equal(again, mask)
    columns, rows = run_pixels(runs)
    assert np.array_equal(np.flatnonzero(mask), rows * 19 + columns)


def test_fan_pixels_lie_within_radii_and_angles():
    mask = make_mask(MaskSettings("fan", fan=Fan(50.5, -10, 20, 60, -30, 10)), 80, 100)
    for row, column in np.argwhere(mask):
        right, down = column - 50.5, row + 10
        assert 20 <= np.hypot(right, down) <= 60
        assert -30 <= np.degrees(np.arctan2(right, down)) <= 10
    assert mask.sum() == pytest.approx(np.radians(40) / 2 * (60**2 - 20**2), rel=0.12)  # cut by the top edge


def test_outlines_are_closed():
    for settings_ in (MaskSettings(), MaskSettings("rectangle", rectangle=(2, 3, 10, 12)),
                      MaskSettings("fan", fan=Fan(10, -5, 8, 20, -20, 20))):
        line = outline(settings_, 30, 40)
        assert np.array_equal(line[0], line[-1]) and len(line) >= 5


@pytest.mark.parametrize("make", [
    lambda: MaskSettings("rectangle"), lambda: MaskSettings("fan"), lambda: MaskSettings("star"),
    lambda: Fan(0, 0, 5, 5, -1, 1), lambda: Fan(0, 0, 1, 5, 3, -3), lambda: Fan(0, 0, 1, 5, -95, 3),
    lambda: Fan(np.nan, 0, 1, 5, -3, 3),
    lambda: make_mask(MaskSettings("rectangle", rectangle=(500, 500, 600, 600)), 20, 20)])
def test_senseless_masks_are_refused(make):
    with pytest.raises(UsxError):
        make()


# -- hole filling -------------------------------------------------------------------------------------------------

def test_a_stick_interpolates_between_its_ends_and_never_beyond():
    values, hit = np.zeros((1, 1, 12)), np.zeros((1, 1, 12), dtype=bool)
    values[0, 0, [2, 6]], hit[0, 0, [2, 6]] = [10, 30], True
    filled, now = fill_holes(values, hit, "stick", 9)
    assert filled[0, 0].tolist() == [0, 0, 10, 15, 20, 25, 30, 0, 0, 0, 0, 0]
    assert now[0, 0].tolist() == [2 <= x <= 6 for x in range(12)]
    assert fill_holes(values, hit, "stick", 3)[1].sum() == 2  # longer than the reach


@pytest.mark.parametrize("method", ["stick", "nearest", "gaussian"])
def test_filling_keeps_hit_voxels_and_the_reach(method):
    random = np.random.default_rng(4)
    hit = random.random((12, 13, 14)) > 0.97
    values = np.where(hit, random.integers(1, 255, hit.shape), 0).astype(float)
    filled, now = fill_holes(values, hit, method, 4)
    assert np.array_equal(filled[hit], values[hit]) and now[hit].all()
    assert (filled[~now] == 0).all() and now.sum() > hit.sum()
    from scipy.ndimage import distance_transform_edt
    assert distance_transform_edt(~hit)[now].max() <= 4 * np.sqrt(3)
    assert filled.max() <= values.max() + 1e-9


def test_filling_that_makes_no_sense():
    nothing = np.zeros((2, 2, 2), dtype=bool)
    assert not fill_holes(nothing, nothing, "nearest", 3)[1].any()
    for method, reach in (("magic", 3), ("stick", 0), ("stick", 1000)):
        with pytest.raises(UsxError):
            fill_holes(nothing, nothing, method, reach)


def test_a_filled_volume_keeps_the_rounded_means():
    compounder = build(sweep(4), CellKind("linear", "mean"))
    plain_volume, filled = compounder.volume(), filled_volume(compounder, "stick", 5)
    assert np.array_equal(filled.values[compounder.hits()], plain_volume.values[compounder.hits()])
