"""Measures of B-mode images against closed forms and made-up bone."""

import numpy as np
import pytest
from scipy import stats

from usx_common.errors import UsxError
from usx_phantom.image_statistics import (
    LOG_RAYLEIGH_SD_DB,
    RAYLEIGH_SNR,
    find_bone,
    log_slope,
    rayleigh_distance,
    speckle_snr,
    undo_fourth_root,
    undo_log,
)


def test_rayleigh_numbers_and_those_of_other_distributions() -> None:
    random = np.random.default_rng(1)
    rayleigh = random.rayleigh(3.0, 200000)
    assert speckle_snr(rayleigh) == pytest.approx(RAYLEIGH_SNR, abs=0.01)
    assert rayleigh_distance(rayleigh) < 0.005
    # a few scatterers per cell (K distribution) and one strong one (Rice) are no fully developed speckle
    few = rayleigh * np.sqrt(random.gamma(1.0, 1.0, rayleigh.size))
    assert speckle_snr(few) < 1.5 and rayleigh_distance(few) > 0.1
    assert speckle_snr(stats.rice.rvs(3.0, size=20000, random_state=2)) > 2.5


def test_compressions_are_undone() -> None:
    envelope = np.random.default_rng(2).rayleigh(50.0, 200000)
    grey = 3.1 * 20.0 * np.log10(envelope)
    assert np.std(20.0 * np.log10(envelope)) == pytest.approx(LOG_RAYLEIGH_SD_DB, abs=0.03)
    assert log_slope(grey) == pytest.approx(3.1, rel=0.01)
    np.testing.assert_allclose(undo_log(grey, 3.1), envelope, rtol=1e-9)
    np.testing.assert_allclose(undo_fourth_root(20.0 * envelope**0.25), envelope, rtol=1e-9)


def picture(width: float = 0.8, shadow: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    """Grey lines (120, 400) of 0.1 mm: tissue of 50, a Gaussian ridge of 220 at a sloping depth, shadow behind."""
    line = np.arange(120)
    depth = 18.0 + 0.03 * line
    r = np.arange(400) * 0.1
    away = r[None, :] - depth[:, None]
    tissue = np.random.default_rng(3).normal(50.0, 10.0, away.shape)
    grey = np.where(away < 0, tissue, shadow) + 170.0 * np.exp(-0.5 * (away / width) ** 2)
    return grey, depth


def test_a_ridge_over_a_shadow_is_found_and_its_width_is_that_of_the_gaussian() -> None:
    grey, depth = picture()
    bone = find_bone(grey, 0.1, 0.2)
    assert (bone.sample >= 0).all()
    assert np.abs(bone.sample * 0.1 - depth).max() < 0.6
    assert np.median(bone.shadow) == pytest.approx(12.0, abs=0.5)
    # 0.5 * (50 + 170) above tissue on one side and above the shadow of 12 on the other
    top = float(np.median(bone.peak))
    behind = 0.8 * np.sqrt(2.0 * np.log(170.0 / (top / 2.0 - 12.0)))
    before = 0.8 * np.sqrt(2.0 * np.log(170.0 / (top / 2.0 - 50.0)))
    assert np.median(bone.thickness) == pytest.approx(before + behind, abs=0.25)


def test_a_bright_layer_with_bright_tissue_behind_it_is_no_bone() -> None:
    grey = np.minimum(picture(shadow=120.0)[0], 225.0)
    with pytest.raises(UsxError, match="no bone line"):
        find_bone(grey, 0.1, 0.2)


@pytest.mark.parametrize("shape", [(2, 400), (120, 200), (120,)])
def test_images_too_small_are_refused(shape: tuple) -> None:
    with pytest.raises(UsxError, match="scan lines of shape"):
        find_bone(np.zeros(shape), 0.1, 0.2)


@pytest.mark.parametrize("values", [np.ones(5), np.ones(500), np.full(500, np.nan)])
def test_values_without_statistics_are_refused(values: np.ndarray) -> None:
    with pytest.raises(UsxError):
        speckle_snr(values)
