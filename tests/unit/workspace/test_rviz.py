"""The RViz configurations show every result of the nodes, with their types and a QoS that is compatible."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
LATCHED = "Transient Local"
SHOWN = ("PointCloud2", "MarkerArray", "Image")  # what RViz has a display for


def published() -> dict[str, tuple[str, str]]:
    """Topic -> message type and durability, read from the nodes' own create_publisher calls."""
    found = {}
    for path in ROOT.glob("src/usx_*/usx_*/node.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "create_publisher":
                kind, topic, profile = call.args
                found[topic.value] = kind.id, LATCHED if profile.attr == "LATCHED" else "Volatile"
    return found


RESULTS = {topic: result for topic, result in published().items() if result[0] in SHOWN}
FIELDS = {"xray/bodies": "label", "spine/partial": "label", "spine/completed": "sigma"}
LAUNCH = sorted(p.name.removesuffix(".launch.xml") for p in ROOT.glob("launch/*.launch.xml"))


def displays(name: str) -> dict[str, dict]:
    content = yaml.safe_load((ROOT / "config" / f"{name}.rviz").read_text())
    shown = content["Visualization Manager"]["Displays"]
    return {d["Topic"]["Value"]: d for d in shown if "Topic" in d} | {d["Class"]: d for d in shown if "Topic" not in d}


@pytest.mark.parametrize("name", ["live", "replay"])
def test_every_result_is_shown_with_its_type_and_qos(name):
    shown = displays(name)
    assert len(RESULTS) == 11  # the results of docs/nodes.md: none was missed by the parser
    for topic, (kind, durability) in RESULTS.items():
        assert shown[topic]["Class"] == f"rviz_default_plugins/{kind}"
        assert shown[topic]["Topic"]["Durability Policy"] == durability
        assert shown[topic]["Topic"]["Reliability Policy"] == "Reliable"
    for topic, field in FIELDS.items():
        assert shown[topic]["Channel Name"] == field
    assert "rviz_default_plugins/TF" in shown


@pytest.mark.parametrize("name", [n for n in LAUNCH if "rviz2 -d" in (ROOT / f"launch/{n}.launch.xml").read_text()])
def test_a_launch_file_opens_a_configuration_that_exists(name):
    text = (ROOT / f"launch/{name}.launch.xml").read_text()
    start = text.index("rviz2 -d ") + len("rviz2 -d ")
    wanted = text[start:].split(".rviz")[0].split("/")[-1] + ".rviz"
    assert (ROOT / "config" / wanted).is_file()
