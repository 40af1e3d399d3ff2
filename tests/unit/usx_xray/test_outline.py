import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from usx_xray.box_fit import Box
from usx_xray.outline import closed_path, rounded_rectangle


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_closed_path_is_closed_and_no_constant_path_is_better(seed: int) -> None:
    cost = np.random.default_rng(seed).normal(size=(24, 7))
    path = closed_path(cost, 0.1)
    steps = np.diff(np.append(path, path[0]))
    assert np.abs(steps).max() <= 2
    total = cost[np.arange(24), path].sum() + 0.1 * (steps**2).sum()
    assert total <= cost[:, path[0]].sum() + 1e-9


def test_path_is_the_best_of_all_from_its_start() -> None:
    cost = np.random.default_rng(4).normal(size=(6, 4))
    path = closed_path(cost, 0.3)

    def total(candidate: tuple[int, ...]) -> float:
        steps = np.diff(np.append(candidate, candidate[0]))
        return np.inf if np.abs(steps).max() > 2 else cost[np.arange(6), candidate].sum() + 0.3 * (steps**2).sum()

    best = min(total((path[0], *rest)) for rest in itertools.product(range(4), repeat=5))
    assert abs(total(tuple(path)) - best) < 1e-12


def test_rounded_rectangle_runs_once_around() -> None:
    box = Box(np.array([3.0, -2.0]), np.array([[0.8, 0.6], [-0.6, 0.8]]), 30.0, 20.0, 0.0)
    points, normals = rounded_rectangle(box, 4.0, 0.5)
    gaps = np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=1)
    assert gaps.max() < 0.7
    x, y = points.T
    area = 0.5 * abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())
    np.testing.assert_allclose(area, 30 * 20 - (4 - np.pi) * 16, rtol=0.01)
    assert (np.einsum("ij,ij->i", points - box.centre, normals) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0)
