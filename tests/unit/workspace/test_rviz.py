"""The RViz configurations show every result of the nodes, with their types and a QoS that is compatible."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
LATCHED = "Transient Local"
# DESIGN: topic -> display class, durability offered by its node
RESULTS = {
    "us/bone": ("PointCloud2", LATCHED), "us/slice": ("PointCloud2", "Volatile"),
    "us/coverage": ("MarkerArray", LATCHED), "xray/image": ("Image", LATCHED), "xray/labels": ("Image", LATCHED),
    "xray/bodies": ("PointCloud2", LATCHED), "cbct/bone": ("PointCloud2", LATCHED),
    "spine/partial": ("PointCloud2", LATCHED), "spine/completed": ("PointCloud2", LATCHED),
    "spine/meshes": ("MarkerArray", LATCHED), "spine/labels": ("MarkerArray", LATCHED),
}
FIELDS = {"xray/bodies": "label", "spine/partial": "label", "spine/completed": "sigma"}
LAUNCH = sorted(p.name.removesuffix(".launch.xml") for p in ROOT.glob("launch/*.launch.xml"))


def displays(name: str) -> dict[str, dict]:
    content = yaml.safe_load((ROOT / "config" / f"{name}.rviz").read_text())
    shown = content["Visualization Manager"]["Displays"]
    return {d["Topic"]["Value"]: d for d in shown if "Topic" in d} | {d["Class"]: d for d in shown if "Topic" not in d}


@pytest.mark.parametrize("name", ["live", "replay"])
def test_every_result_is_shown_with_its_type_and_qos(name):
    shown = displays(name)
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
