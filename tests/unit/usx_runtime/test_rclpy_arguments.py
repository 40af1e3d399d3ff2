"""The ROS arguments: remappings, -p, parameter files with wildcards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from usx_runtime.rclpy import arguments
from usx_runtime.rclpy.exceptions import InvalidROSArgsError, UnknownROSArgsError


@pytest.mark.parametrize(("pattern", "matching", "others"), [
    ("/**", ["/a", "/a/b", "/a/b/c"], []),
    ("**", ["/a", "/a/b"], []),
    ("/*", ["/a"], ["/a/b"]),
    ("*", ["/a"], ["/a/b"]),
    ("/a", ["/a"], ["/b", "/a/a", "/aa"]),
    ("a", ["/a"], ["/n/a"]),
    ("/**/a", ["/a", "/n/a", "/n/m/a"], ["/ba", "/a/n"]),
    ("/n/*", ["/n/a"], ["/a", "/n/m/a", "/m/a"]),
    ("/*/a", ["/n/a"], ["/a", "/n/m/a"]),
    ("/n/**", ["/n", "/n/a", "/n/m/a"], ["/m/a"]),
])
def test_node_patterns(pattern: str, matching: list[str], others: list[str]) -> None:
    compiled = arguments.node_pattern(pattern)
    assert all(compiled.fullmatch(name) for name in matching)
    assert not any(compiled.fullmatch(name) for name in others)


@pytest.mark.parametrize(("text", "value"), [
    ("1", 1), ("-7", -7), ("1.0", 1.0), ("1e3", 1000.0), (".5", 0.5), ("-1.5e-3", -0.0015), (".inf", float("inf")),
    ("true", True), ("no", False), ("word", "word"), ("'1'", "1"), ("2020-01-01", "2020-01-01"), ("1:30", "1:30"),
    ("[1, 2]", [1, 2]), ("[1.0, 2.5]", [1.0, 2.5]), ("[a, b]", ["a", "b"]), ("0x10", 16), ("/dev/x", "/dev/x"),
])
def test_values_are_read_as_rcl_reads_them(text: str, value: Any) -> None:
    found = arguments.parse(["--ros-args", "-p", f"name:={text}"]).overrides("node", "/")["name"]
    assert found == value and type(found) is type(value)


def test_later_values_win_and_files_nest(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("""
/**:
  ros__parameters: {a: 1, b: 1, deep: {er: {x: 1}}}
ns:
  node:
    ros__parameters: {b: 2}
/other:
  ros__parameters: {a: 9}
""")
    parsed = arguments.parse(["prog", "-x", "--ros-args", "-p", "a:=5", "--params-file", str(file), "-p", "node:c:=3",
                              "-p", "stranger:c:=4", "--", "rest"])
    assert parsed.overrides("node", "/ns") == {"a": 1, "b": 2, "deep.er.x": 1}
    assert parsed.overrides("node", "/") == {"a": 1, "b": 1, "deep.er.x": 1, "c": 3}
    assert parsed.others == ["prog", "-x", "rest"]


@pytest.mark.parametrize(("content", "why"), [
    ("just text", "must be a mapping"),
    ("a: 1", "must be a mapping"),
    ("ros__parameters: {a: 1}", "needs a node name"),
    ("/**:\n  ros__parameters: [1]", "names and values"),
    ("a: [", "not readable as YAML"),
    ("\xff\xfe", "p.yaml"),
])
def test_a_bad_parameter_file_is_named(tmp_path: Path, content: str, why: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(InvalidROSArgsError, match=why) as error:
        arguments.parse(["--ros-args", "--params-file", str(file)])
    assert "p.yaml" in str(error.value)


@pytest.mark.parametrize("words", [
    ["--params-file", "/nowhere/p.yaml"], ["-p", "name=1"], ["-p", ":=1"], ["-r"], ["-p", "a:=["],
])
def test_bad_arguments_are_refused(words: list[str]) -> None:
    with pytest.raises(InvalidROSArgsError):
        arguments.parse(["--ros-args", *words])


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(UnknownROSArgsError, match="--frobnicate"):
        arguments.parse(["--ros-args", "--frobnicate"])


@pytest.mark.parametrize(("rules", "name", "service", "result"), [
    (["in:=out"], "/ns/in", False, "/ns/out"),
    (["in:=/out"], "/ns/in", False, "/out"),
    (["/in:=/out"], "/ns/in", False, "/ns/in"),
    (["~/in:=out"], "/ns/node/in", False, "/ns/out"),
    (["in:=first", "in:=second"], "/ns/in", False, "/ns/first"),
    (["node:in:=out"], "/ns/in", False, "/ns/out"),
    (["stranger:in:=out"], "/ns/in", False, "/ns/in"),
    (["rostopic://in:=out"], "/ns/in", True, "/ns/in"),
    (["rosservice://in:=out"], "/ns/in", True, "/ns/out"),
])
def test_remappings(rules: list[str], name: str, service: bool, result: str) -> None:
    words = [word for rule in rules for word in ("-r", rule)]
    assert arguments.parse(["--ros-args", *words]).remap(name, "node", "/ns", service) == result


def test_node_name_and_namespace() -> None:
    parsed = arguments.parse(["--ros-args", "-r", "__node:=new", "-r", "__ns:=/there", "-r", "old:__node:=other"])
    assert (parsed.node_name("old"), parsed.namespace("old", "/")) == ("new", "/there")
    assert arguments.parse([]).namespace("old", "/here") == "/here"
