"""Published sizes: the rule by which series are combined, on rows made by hand, and the table that is shipped."""

import numpy as np
import pytest

from usx_common.errors import UsxError
from usx_common.levels import LEVELS
from usx_phantom.morphometry import MEASURES
from usx_phantom.published_morphometry import DISCS, combine, published

KEY = ("canal_width", "L3")


def row(series, mean, dispersion, kind="SD", n=100, sex="all"):
    return {"measure": KEY[0], "level": KEY[1], "series": series, "sex": sex, "mean_mm": str(mean),
            "dispersion_mm": str(dispersion), "dispersion_kind": kind, "n": str(n), "citation": "made up"}


def test_series_count_the_same_and_spreads_are_pooled_within():
    found = combine([row("A", 20.0, 2.0, n=1000), row("B", 30.0, 4.0, n=30)])[KEY]
    assert found.mean == pytest.approx(25.0)
    assert found.sd == pytest.approx(np.sqrt((4.0 + 16.0) / 2.0))  # not widened by the 10 mm between A and B
    assert found.series == ("A", "B")


def test_men_and_women_are_half_of_a_population_each():
    found = combine([row("A", 24.0, 2.0, sex="M", n=700), row("A", 20.0, 1.0, sex="F", n=40)])[KEY]
    rng = np.random.default_rng(0)
    people = np.concatenate([rng.normal(24.0, 2.0, 400000), rng.normal(20.0, 1.0, 400000)])
    assert found.mean == pytest.approx(people.mean(), abs=0.02)
    assert found.sd == pytest.approx(people.std(), abs=0.02)


def test_small_and_one_sided_series_do_not_count():
    good = row("good", 20.0, 2.0)
    rows = [good, row("few", 90.0, 9.0, n=12), row("men only", 90.0, 9.0, sex="M"), row("unknown", 90.0, 9.0, n="")]
    assert combine(rows)[KEY] == combine([good])[KEY]


@pytest.mark.parametrize(("dispersion", "kind"), [(0.1, "SE"), ("", "none"), (0.3, "SD"), (9.0, "SD")])
def test_what_is_no_spread_of_people_gives_a_mean_only(dispersion, kind):
    found = combine([row("A", 20.0, 2.0), row("B", 24.0, dispersion, kind)])[KEY]
    assert found.mean == pytest.approx(22.0) and found.sd == pytest.approx(2.0)


def test_errors_of_the_mean_and_ranges_become_spreads():
    assert combine([row("A", 20.0, 0.25, "SEM", n=64)])[KEY].sd == pytest.approx(2.0)
    widths = np.ptp(np.random.default_rng(1).normal(size=(4000, 87)), axis=1)
    found = combine([row("A", 50.0, 3.0 * widths.mean(), "range", n=87)])[KEY]
    assert found.sd == pytest.approx(3.0, rel=0.03)


def test_a_measure_without_any_spread_is_refused():
    with pytest.raises(UsxError, match="spread of canal_width at L3"):
        combine([row("A", 20.0, "", "none")])
    with pytest.raises(UsxError, match="dispersion kind 'sd'"):
        combine([row("A", 20.0, 2.0, "sd")])


def test_shipped_table_covers_the_measures_with_human_numbers():
    table = published()
    for measure in MEASURES:
        levels = {level for name, level in table if name == measure}
        assert levels >= set(LEVELS[1:]), measure
    assert {level for name, level in table if name == "body_spacing"} == set(DISCS)
    for value in table.values():
        assert 0.03 < value.sd / value.mean < 0.3
    l3 = [0.5 * (table["body_height_anterior", x].mean + table["body_height_posterior", x].mean) for x in ("L3", "L4")]
    assert table["body_spacing", "L3-L4"].mean == pytest.approx(np.mean(l3) + table["disc_height", "L3-L4"].mean)
    assert "Panjabi 1992" not in table["canal_width", "L3"].series  # twelve spines
    assert "Gilad 1985" not in table["body_height_anterior", "L3"].series  # men only
