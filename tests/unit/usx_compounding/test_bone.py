"""Bone response and thinned surface on drawn images whose bone is known."""

from __future__ import annotations

import numpy as np
import pytest

from usx_common.errors import UsxError
from usx_compounding.beams import make_tables, sample_beams, to_image
from usx_compounding.bone_response import BoneDetector, BoneSettings
from usx_compounding.bone_surface import BRICK, BoneChannel, thin
from usx_compounding.mask import Fan, MaskSettings, make_mask

FAN = MaskSettings("fan", fan=Fan(159.5, -70.0, 85.0, 300.0, -30.0, 30.0))


def tissue(shape, seed=0):
    return np.clip(np.random.default_rng(seed).rayleigh(45, shape), 0, 255).astype(np.uint8)


def with_bone(image, depth_of_column):
    image = image.copy()
    for column, depth in depth_of_column.items():
        image[depth - 1:depth + 2, column] = 235
        image[depth + 2:, column] = 4
    return image


def test_a_ridge_over_shadow_is_found_where_it_lies():
    bone = {column: 90 + column // 10 for column in range(60, 140)}
    image = with_bone(tissue((240, 200)), bone)
    response = BoneDetector(MaskSettings(), image.shape, (0.4, 0.4)).response(image)
    rows, columns = np.nonzero(response > 60)
    on_bone = np.array([c in bone and abs(r - bone[c]) <= 3 for r, c in zip(rows, columns, strict=True)])
    assert on_bone.mean() > 0.97
    assert len({c for c, good in zip(columns, on_bone, strict=True) if good}) > 70


@pytest.mark.parametrize("spoil", ["no shadow", "no ridge", "dark image", "no room for a shadow"])
def test_what_is_not_bone(spoil):
    image = tissue((240, 200))
    if spoil == "no shadow":
        image[100:103] = 235
    elif spoil == "no ridge":
        image[100:] = 3
    elif spoil == "dark image":
        image[:] = 0
    else:
        image[225:228], image[228:] = 235, 3
    response = BoneDetector(MaskSettings(), image.shape, (0.4, 0.4)).response(image)
    assert (response > 60).mean() < 0.002


def test_along_the_rays_of_a_fan():
    mask = make_mask(FAN, 240, 320)
    rows, columns = np.indices(mask.shape)
    radius, angle = FAN.fan.polar(columns, rows)
    image = tissue(mask.shape)
    there = np.abs(angle) < 20
    image[there & (np.abs(radius - 160) < 2)] = 235
    image[there & (radius >= 162)] = 3
    image[~mask] = 0
    response = BoneDetector(FAN, image.shape, (0.5, 0.5)).response(image)
    assert (response[~mask] == 0).all()
    strong = response > 60
    assert np.abs(radius[strong] - 160).mean() < 2.5 and strong.sum() > 300
    found = np.histogram(angle[strong], bins=8, range=(-20, 20))[0]
    assert (found > 0).all()


def test_tables_there_and_back():
    image = tissue((240, 320))
    for settings in (FAN, MaskSettings("rectangle", rectangle=(30, 20, 250, 200))):
        tables = make_tables(settings, image.shape, (0.5, 0.5))
        back = to_image(np.rint(sample_beams(image, tables.columns, tables.rows)).astype(np.uint8), tables.back)
        mask = make_mask(settings, *image.shape)
        assert (back[~mask] == 0).all()
        assert np.corrcoef(back[mask], image[mask])[0, 1] > (0.999 if settings.kind == "rectangle" else 0.75)


def test_senseless_sizes_are_refused():
    with pytest.raises(UsxError, match="thickness"):
        BoneSettings(thickness=0)


def channel(cells, low=(0, 0, 0), spacing=0.5):
    z, y, x = np.nonzero(cells > 1)
    bricks = np.unique((np.stack([x, y, z], axis=1) + low) // BRICK, axis=0)
    return BoneChannel(cells, low, spacing, bricks)


def test_a_thick_sheet_becomes_one_layer_at_its_crest():
    cells = np.zeros((40, 30, 30), dtype=np.int16)
    for offset, response in ((-2, 40), (-1, 90), (0, 140), (1, 120), (2, 50)):
        cells[20 + offset, 5:25, 5:25] = response + 1
    found = thin(channel(cells, low=(100, -50, 7)), np.array([0.0, 0.0, -1.0]), 30)
    assert len(found.points) == 400
    crest = (20 + 0.5 * (90 - 120) / (90 - 280 + 120) + 7) * 0.5
    assert np.allclose(found.points[:, 2], crest)
    assert found.points[:, 0].min() == (5 + 100) * 0.5 and found.points[:, 1].max() == (24 - 50) * 0.5
    assert (found.intensity == 140).all()


def test_speckle_and_faint_response_are_dropped():
    cells = np.zeros((40, 30, 30), dtype=np.int16)
    cells[8, 8, 8] = 200
    cells[30, 5:25, 5:25] = 25
    assert len(thin(channel(cells), np.array([0.0, 0.0, 1.0]), 30).points) == 0


def test_no_bricks_no_points():
    empty = BoneChannel(np.zeros((4, 4, 4), dtype=np.int16), (0, 0, 0), 1.0, np.empty((0, 3), dtype=np.int64))
    assert thin(empty, np.zeros(3)).points.shape == (0, 3)
