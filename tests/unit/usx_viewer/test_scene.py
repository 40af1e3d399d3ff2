"""The browser's scene: what is shown, where, and that a browser really gets it."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from usx_common import transforms
from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_viewer import colours
from usx_viewer.panel import Panel, Status
from usx_viewer.parameters import TABLE
from usx_viewer.scene import MAX_CLOUD_POINTS, Scene
from usx_viewer.server import start_server
from usx_viewer.view import View

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))
from browser import Browser, chromium, levels_seen


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server(port):
    running = start_server("127.0.0.1", port)
    yield running
    running.stop()


@pytest.fixture
def view(server) -> View:
    scene = Scene(server)
    result = View(scene, Panel(server, scene), {p.name: p.default for p in TABLE})
    result.scene = scene
    return result


def box(centre: tuple[float, float, float], size: float) -> Mesh:
    import trimesh

    shape = trimesh.creation.box((size, size, size))
    return Mesh(shape.vertices + centre, shape.faces)


def corners(mesh: Mesh) -> list:
    return (mesh.vertices[mesh.faces].reshape(-1, 3) / 1000.0).tolist()


def handle(view: View, name: str):
    return view.scene._objects[name]


def test_nothing_is_shown_before_its_frame_has_a_place(view):
    view.show_completed("spine", "L3 22", corners(box((0, 0, 0), 40)))
    assert not handle(view, "completed/L3/mesh").visible
    view.set_pose("spine", transforms.make_transform(np.eye(3), [10, 20, 30]))
    assert handle(view, "completed/L3/mesh").visible
    view.scene.show("completed/L3", False)
    assert not handle(view, "completed/L3/mesh").visible


def test_clouds_are_thinned_cleaned_and_removed_when_empty(view):
    points = np.random.default_rng(0).normal(size=(3 * MAX_CLOUD_POINTS + 5, 3))
    points[7] = np.nan
    view.show_cloud("us/bone", "us_volume", points, {"intensity": np.ones(len(points))})
    assert len(handle(view, "bone").points) <= MAX_CLOUD_POINTS
    assert np.isfinite(handle(view, "bone").points).all()
    view.show_cloud("us/bone", "us_volume", np.empty((0, 3)), {"intensity": np.empty(0)})
    assert view.scene.objects() == []


def test_the_xray_plane_has_its_true_size_at_the_bodies_depth(view):
    view.set_pose("xray", np.eye(4))
    view.show_xray("xray", np.arange(1000 * 800, dtype=np.uint16).reshape(1000, 800))
    assert "xray/image" not in view.scene.objects()
    view.set_camera([4000, 0, 399.5, 0, 4000, 499.5, 0, 0, 1])
    view.show_cloud("xray/bodies", "xray", np.array([[0.0, 0.0, 800.0]]), {"label": np.array([20.0])})
    plane = handle(view, "xray/image")
    assert plane.render_width == pytest.approx(0.160)
    assert plane.render_height == pytest.approx(0.200)
    np.testing.assert_allclose(plane.position, [0, 0, 0.8], atol=1e-3)


def test_completed_vertebrae_are_coloured_labelled_and_cleared(view):
    view.set_pose("spine", np.eye(4))
    view.show_completed("spine", "vertebrae 21", corners(box((0, 0, 0), 40)))
    view.show_cloud("spine/completed", "spine", np.zeros((4, 3)),
                    {"label": np.full(4, 21.0), "sigma": np.full(4, 0.0012)})
    assert handle(view, "completed/L2/mesh").color == colours.LEVEL_COLOURS["L2"]
    assert "1.2 mm" in handle(view, "completed/L2/label").text
    view.clear_completed()
    assert view.scene.objects() == ["sigma"]


def test_a_node_that_falls_silent_is_shown_so(view):
    view.show_state("xray_node", Status(0, "waiting for an X-ray"))
    panel = view._panel
    panel.mark_silent(time.monotonic() + 1.0)
    assert "silent" not in panel._text.content
    panel.mark_silent(time.monotonic() + 10.0)
    assert "silent; it last said: waiting for an X-ray" in panel._text.content
    view.show_state("xray_node", Status(0, "back"))
    assert "silent" not in panel._text.content


def test_a_taken_port_is_refused_and_named(server, port):
    with pytest.raises(UsxError, match=str(port)):
        start_server("127.0.0.1", port)


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
def test_a_browser_shows_the_levels_and_the_nodes_words(view, server, port, tmp_path):
    view.set_pose("spine", transforms.make_transform(np.eye(3), [0, 0, 500]))
    for number, level in enumerate(colours.LEVEL_COLOURS):
        mesh = box((0, 0, 80.0 - 40 * number), 35)
        view.show_completed("spine", level, corners(mesh))
    view.show_state("compounding_node", Status(0, "sweep of <b>360</b> frames"))
    with Browser(f"http://127.0.0.1:{port}") as browser:
        deadline = time.monotonic() + 60
        missing = set(colours.LEVEL_COLOURS)
        while missing and time.monotonic() < deadline:
            time.sleep(1.0)
            browser.screenshot(tmp_path / "page.png")
            missing = set(colours.LEVEL_COLOURS) - levels_seen(tmp_path / "page.png", colours.LEVEL_COLOURS)
        assert not missing
        text = browser.evaluate("document.body.innerText")
        assert "compounding_node" in text and "sweep of <b>360</b> frames" in text

