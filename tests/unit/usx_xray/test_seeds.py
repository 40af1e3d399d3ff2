import pytest

from usx_xray.geometry import XrayGeometry
from usx_xray.refusal import Refused
from usx_xray.seeds import ClickCollector, Seed, check_seeds, seeds_of_parameters

GEOMETRY = XrayGeometry((3750.0, 3750.0), (300.0, 400.0), 750.0, 1100.0)  # 0.2 mm per pixel in the mid plane


def test_lists_become_seeds_from_cranial_to_caudal() -> None:
    seeds = seeds_of_parameters([22, 20], [5.0, 6.0], [7.0, 8.0])
    assert seeds == [Seed(20, 6.0, 8.0), Seed(22, 5.0, 7.0)] and seeds[0].level == "L1"


@pytest.mark.parametrize("lists", [([20], [1.0, 2.0], [1.0]), ([19], [1.0], [1.0]), ([20, 20], [1.0, 2.0], [1.0, 2.0])])
def test_lists_that_do_not_fit(lists: tuple) -> None:
    with pytest.raises(Refused) as caught:
        seeds_of_parameters(*lists)
    assert "seed_labels" in str(caught.value)


@pytest.mark.parametrize(("seeds", "reason"), [
    ([], "no_seeds"), ([Seed(20, -1.0, 10.0)], "seed_outside_image"), ([Seed(20, 10.0, 800.0)], "seed_outside_image"),
    ([Seed(20, float("nan"), 10.0)], "seed_outside_image"),
    ([Seed(20, 100.0, 100.0), Seed(21, 100.0, 160.0)], "two_seeds_in_one_body")])
def test_refused_seeds(seeds: list[Seed], reason: str) -> None:
    with pytest.raises(Refused) as caught:
        check_seeds(seeds, (800, 600), GEOMETRY)
    assert caught.value.reason == reason


def test_clicks_are_given_levels_in_their_order_and_can_be_corrected() -> None:
    clicks = ClickCollector([20, 21, 22])
    assert clicks.click(100.0, 100.0, GEOMETRY).label == 20
    assert clicks.click(100.0, 280.0, GEOMETRY).label == 21
    assert clicks.click(105.0, 110.0, GEOMETRY).label == 20  # 2 mm from the first: the same body again
    assert clicks.seeds == (Seed(20, 105.0, 110.0), Seed(21, 100.0, 280.0))
    clicks.click(100.0, 460.0, GEOMETRY)
    assert clicks.click(100.0, 640.0, GEOMETRY).label == 20 and len(clicks.seeds) == 1  # a new round
