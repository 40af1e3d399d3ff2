"""Launch files with every supported element, read into the processes they ask for."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
import yaml

from usx_runtime.launch.processes import Process, embedded_command, embedded_shell_line
from usx_runtime.launch.reader import declared_arguments, read_launch_file
from usx_runtime.user_error import UserError

PYTHON_M = [sys.executable, "-m", "usx_runtime"]


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python distribution `toy` with the executable `talker`."""
    folder = tmp_path / "site" / "toy-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[console_scripts]\ntalker = toy.node:main\nother = toy.other:main\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("OUTSIDE", "yes")


def read(tmp_path: Path, body: str, **arguments: str) -> tuple[list[Process], list[str]]:
    file = tmp_path / "main.launch.xml"
    file.write_text(f"<launch>{body}</launch>")
    return read_launch_file(file, arguments, tmp_path)


def one(tmp_path: Path, body: str, **arguments: str) -> Process:
    processes, _ = read(tmp_path, body, **arguments)
    assert len(processes) == 1
    return processes[0]


def ros_arguments(process: Process) -> list[str]:
    return list(process.command[process.command.index("--ros-args") + 1 :])


def parameters(process: Process) -> list[dict]:
    words = ros_arguments(process)
    return [yaml.safe_load(Path(b).read_text()) for a, b in itertools.pairwise(words) if a == "--params-file"]


def test_a_node_with_everything(tmp_path: Path) -> None:
    (tmp_path / "given.yaml").write_text("/**: {ros__parameters: {spacing: 0.5}}")
    process = one(
        tmp_path,
        """<arg name="rate" default="2.5"/>
        <node pkg="toy" exec="talker" name="speaker" namespace="left" args="--quick 'two words'" output="screen"
              respawn="true" respawn_delay="1.5" on_exit="shutdown" cwd="/tmp">
          <param from="$(dirname)/given.yaml"/>
          <param name="rate" value="$(var rate)"/>
          <param name="text" value="1.0" type="str"/>
          <param name="outer"><param name="inner" value="true"/></param>
          <param name="matrix" value="[1.0, 2.0]"/>
          <param name="names" value="a;b" value-sep=";"/>
          <remap from="in" to="/there/in"/>
          <env name="INSIDE" value="1"/>
        </node>""",
    )
    words = list(process.command)
    assert words[: words.index("--ros-args")] == [*PYTHON_M, "run", "toy", "talker", "--quick", "two words"]
    assert ros_arguments(process)[:5] == ["-r", "__node:=speaker", "-r", "__ns:=/left", "--params-file"]
    assert ros_arguments(process)[-2:] == ["-r", "in:=/there/in"]
    given, *inline = parameters(process)
    assert given == {"/**": {"ros__parameters": {"spacing": 0.5}}}
    assert [values["/left/speaker"]["ros__parameters"] for values in inline] == [
        {"rate": 2.5},
        {"text": "1.0"},
        {"outer.inner": True},
        {"matrix": [1.0, 2.0]},
        {"names": ["a", "b"]},
    ]
    assert (process.name, process.folder, process.respawn_delay, process.shutdown_on_exit) == (
        "talker-1",
        "/tmp",
        1.5,
        True,
    )
    assert process.environment["INSIDE"] == "1" and process.environment["OUTSIDE"] == "yes"


def test_a_plain_node_gets_no_ros_arguments(tmp_path: Path) -> None:
    process = one(tmp_path, '<node pkg="toy" exec="talker"/>')
    assert list(process.command) == [*PYTHON_M, "run", "toy", "talker"]
    assert process.respawn_delay is None and not process.shutdown_on_exit


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("1", None, 1),
        ("1.5", None, 1.5),
        ("true", None, True),
        ("[1, 2]", None, [1, 2]),
        ("abc", None, "abc"),
        ("", None, ""),
        ("{a: 1}", None, "{a: 1}"),
        ("a: [", None, "a: ["),
        ("/dev/null", None, "/dev/null"),
        ("2", "float", 2.0),
        ("2", "int", 2),
        ("1", "bool", True),
        ("07", "str", "07"),
    ],
)
def test_types_of_parameter_values(text: str, kind: str | None, value: object, tmp_path: Path) -> None:
    attribute = f' type="{kind}"' if kind else ""
    process = one(tmp_path, f'<node pkg="toy" exec="talker"><param name="p" value="{text}"{attribute}/></node>')
    (content,) = parameters(process)
    got = content["/**"]["ros__parameters"]["p"]
    assert got == value and type(got) is type(value)


def test_namespaces_and_global_parameters_end_with_their_group(tmp_path: Path) -> None:
    processes, _ = read(
        tmp_path,
        """<set_parameter name="use_sim_time" value="true"/>
        <push-ros-namespace namespace="outer"/>
        <group>
          <push_ros_namespace namespace="inner"/>
          <set_parameter name="more" value="1"/>
          <set_env name="LAYER" value="inner"/>
          <let name="who" value="someone"/>
          <node pkg="toy" exec="talker" name="$(var who)"/>
          <node pkg="toy" exec="talker" namespace="/absolute"/>
        </group>
        <group scoped="false"><let name="later" value="kept"/></group>
        <unset_env name="OUTSIDE"/>
        <node pkg="toy" exec="talker" name="$(var later)"/>""",
    )
    first, second, third = processes
    assert ros_arguments(first) == [
        *("-r", "__node:=someone", "-r", "__ns:=/outer/inner", "-p", "use_sim_time:=true", "-p", "more:=1")
    ]
    assert ros_arguments(second)[:2] == ["-r", "__ns:=/absolute"]
    assert ros_arguments(third) == ["-r", "__node:=kept", "-r", "__ns:=/outer", "-p", "use_sim_time:=true"]
    assert first.environment["LAYER"] == "inner" and "LAYER" not in third.environment
    assert first.environment["OUTSIDE"] == "yes" and "OUTSIDE" not in third.environment


@pytest.mark.parametrize(
    ("attribute", "started"),
    [
        ('if="true"', True),
        ('if="1"', True),
        ('if="False"', False),
        ('if="0"', False),
        ('unless="true"', False),
        ('unless="$(var no)"', True),
    ],
)
@pytest.mark.parametrize("wrap", [False, True])
def test_conditions(attribute: str, started: bool, wrap: bool, tmp_path: Path) -> None:
    node = f'<node pkg="toy" exec="talker" {"" if wrap else attribute}/>'
    body = f"<group {attribute}>{node}</group>" if wrap else node
    processes, _ = read(tmp_path, '<let name="no" value="false"/>' + body)
    assert len(processes) == started


def test_an_included_file_gets_arguments_and_knows_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "part.launch.xml").write_text(
        """<launch><arg name="rate"/><arg name="kept" default="default"/>
        <executable cmd="echo $(var rate) $(var kept) $(dirname)"/></launch>"""
    )
    processes, _ = read(
        tmp_path,
        """<include file="$(dirname)/deeper/part.launch.xml"><arg name="rate" value="$(env OUTSIDE)"/></include>
        <executable cmd="echo $(dirname)"/>""",
    )
    assert [list(process.command[1:]) for process in processes] == [
        ["yes", "default", str(tmp_path / "deeper")],
        [str(tmp_path)],
    ]


def test_executables(tmp_path: Path) -> None:
    process = one(
        tmp_path,
        '<executable cmd="ros2 run toy talker --nodes a -- ros2 bag play $(var bag) --clock" name="player"/>',
        bag="/data/a b",
    )
    assert list(process.command) == [
        *(*PYTHON_M, "run", "toy", "talker", "--nodes", "a", "--", *PYTHON_M, "bag", "play", "/data/a b", "--clock")
    ]
    assert process.name == "player-1"
    shell = one(tmp_path, '<executable cmd="ros2 topic list | wc -l" shell="true"/>')
    assert shell.command[:2] == ("/bin/sh", "-c")
    assert shell.command[2].endswith("'usx_runtime' topic list | wc -l") and "ros2" not in shell.command[2]
    prefixed = one(tmp_path, '<executable cmd="echo ros2" args="x" launch-prefix="nice -n 5"/>')
    assert prefixed.command == ("nice", "-n", "5", "echo", "ros2", "x")


def test_ros2_is_replaced_only_where_it_is_a_command() -> None:
    assert embedded_command(["echo", "ros2"]) == ("echo", "ros2")
    assert embedded_command(["x", "--", "ros2", "--", "ros2"]) == ("x", "--", *PYTHON_M, "--", *PYTHON_M)
    assert embedded_shell_line("echo ros2 x; ros2 bag").startswith("echo ros2 x; '")


def test_arguments(tmp_path: Path) -> None:
    body = """<arg name="bag" description="folder of the recording"/>
        <arg name="view" default="$(var bag)/v"/>
        <arg name="mode" default="cpu" description="device"><choice value="cpu"/><choice value="cuda"/></arg>
        <executable cmd="echo $(var view) $(var mode)"/>"""
    assert one(tmp_path, body, bag="b").command == ("echo", "b/v", "cpu")
    assert one(tmp_path, body, bag="b", view="x", mode="cuda").command == ("echo", "x", "cuda")
    with pytest.raises(UserError, match=r"'bag' \(folder of the recording\) is required"):
        read(tmp_path, body)
    with pytest.raises(UserError, match="mode:=tpu: must be one of cpu, cuda"):
        read(tmp_path, body, bag="b", mode="tpu")
    assert declared_arguments(tmp_path / "main.launch.xml") == [
        ("bag", None, "folder of the recording"),
        ("view", "$(var bag)/v", "no description given"),
        ("mode", "cpu", "device"),
    ]


def test_warnings(tmp_path: Path) -> None:
    body = '<node pkg="toy" exec="talker"><param from="/absent.yaml"/></node>'
    processes, warnings = read(tmp_path, body, tpyo="1")
    assert "--params-file" not in processes[0].command
    assert any("'/absent.yaml' does not exist" in warning for warning in warnings)
    assert any("'tpyo:=1' is declared nowhere" in warning for warning in warnings)


def test_a_parameter_file_with_substitutions(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("/**: {ros__parameters: {folder: $(var folder)}}")
    body = f'<node pkg="toy" exec="talker"><param from="{tmp_path}/p.yaml" allow_substs="true"/></node>'
    assert parameters(one(tmp_path, body, folder="/here")) == [{"/**": {"ros__parameters": {"folder": "/here"}}}]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<nodes/>", "<nodes>: not supported"),
        ("<timer period='1'/>", 'main.launch.xml: <timer period="1">: not supported'),
        ('<node pkg="toy"/>', "attribute 'exec' is missing"),
        ('<node pkg="toy" exec="talker" nmae="x"/>', "attribute 'nmae' is not supported"),
        ('<node pkg="toy" exec="absent"/>', "package 'toy' has no executable 'absent'; it has: other, talker"),
        ('<node pkg="moon" exec="x"/>', "package 'moon' is not installed"),
        ('<node pkg="toy" exec="talker"><para/></node>', "<para> is not supported inside <node>"),
        ('<node pkg="toy" exec="talker" if="$(eval 1)"/>', "is not supported"),
        ('<node pkg="toy" exec="talker" if="maybe"/>', "if='maybe': must be true, false"),
        ('<node pkg="toy" exec="talker" if="1" unless="0"/>', "both 'if' and 'unless'"),
        ('<node pkg="toy" exec="talker" on_exit="explode"/>', "on_exit='explode'"),
        ('<node pkg="toy" exec="talker" respawn="true" respawn_delay="soon"/>', "respawn_delay='soon'"),
        ('<node pkg="toy" exec="talker" respawn="true" respawn_delay="-1"/>', "respawn_delay='-1': must be 0 or more"),
        ('<node pkg="toy" exec="talker"><param name="p" value="x" type="int"/></node>', "value='x' is no int"),
        ('<node pkg="toy" exec="talker"><param name="p" value="x" type="odd"/></node>', "type='odd'"),
        ('<node pkg="toy" exec="talker"><param name="p"/></node>', "attribute 'value' is missing"),
        ('<let name="x"/>', "attribute 'value' is missing"),
        ('<include file="absent.launch.xml"/>', "absent.launch.xml' does not exist"),
        ('<include file="$(dirname)/x.py"/>', "does not exist"),
        ('<include file="$(filename)"/>', "include each other without end"),
        ('<executable cmd=""/>', "'cmd' is empty"),
        ("<executable cmd='echo \"a'/>", "no closing quotation"),
        ("<group><oops/></group>", "<oops>: not supported"),
    ],
)
def test_what_is_refused(body: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, body)
    assert message in str(caught.value) and "main.launch.xml" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.launch.xml", "<launch><node></launch>", "not well-formed"),
        ("a.launch.xml", "", "not well-formed"),
        ("a.launch.xml", "<robot/>", "outermost element must be <launch>"),
        ("a.launch.py", "", "reads XML only"),
    ],
)
def test_what_is_no_launch_file(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read_launch_file(tmp_path / name, {}, tmp_path)
