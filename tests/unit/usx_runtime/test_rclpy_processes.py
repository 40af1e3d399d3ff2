"""Nodes as processes: signals at any moment of their start, exit codes, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Python ends by SIGINT itself where a KeyboardInterrupt, though caught later, has passed an exec() of text.
ENDS = {signal.SIGINT: (0, -signal.SIGINT), signal.SIGTERM: (0,)}
HEAD = """
import sys
from usx_runtime import hook
hook.install()
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
"""
NODE = HEAD + """
print("imported", flush=True)
try:
    rclpy.init()
    print("initialised", flush=True)
    node = Node("brief")
    node.create_timer(0.01, lambda: None)
    print("spinning", flush=True)
    rclpy.spin(node)
except (KeyboardInterrupt, ExternalShutdownException):
    pass
finally:
    rclpy.try_shutdown()
print("ended", flush=True)
"""


def start(script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, *arguments], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, **environment})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("word", "delay"), [
    ("initialised", 0.0), ("initialised", 0.03), ("spinning", 0.1),
])
def test_a_signal_ends_a_node_in_order(number: signal.Signals, word: str, delay: float) -> None:
    child = start(NODE)
    assert child.stdout is not None
    while child.stdout.readline().strip() != word:
        assert child.poll() is None
    time.sleep(delay)
    child.send_signal(number)
    output, errors = child.communicate(timeout=20)
    assert child.returncode in ENDS[number]
    assert not errors
    assert output.endswith("ended\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_init_ends_the_process_as_python_does(number: signal.Signals) -> None:
    child = start(NODE.replace("    rclpy.init()", "    import time; time.sleep(20)"))
    assert child.stdout is not None and child.stdout.readline() == "imported\n"
    child.send_signal(number)
    child.communicate(timeout=20)
    assert child.returncode in (ENDS[number] if number == signal.SIGINT else (-signal.SIGTERM,))


@pytest.mark.parametrize(("arguments", "environment", "why"), [
    ([], {"ROS_DOMAIN_ID": "300"}, "ROS_DOMAIN_ID = 300: must be an integer between 0 and 232"),
    ([], {"ROS_AUTOMATIC_DISCOVERY_RANGE": "MOON"}, "MOON"),
    (["--ros-args", "-p", "x"], {}, "-p x: must have the form name:=value"),
    (["--ros-args", "--params-file", "/nowhere.yaml"], {}, "/nowhere.yaml"),
    (["--ros-args", "-p", "mixed:=[1, a]"], {}, "mixed"),
    (["--ros-args", "-p", "use_sim_time:=1"], {}, "use_sim_time"),
    (["--ros-args", "--log-level", "loud"], {}, "loud"),
    (["--ros-args", "-r", "__node:=a b"], {}, "Invalid node name"),
])
def test_a_bad_start_is_explained(arguments: list[str], environment: dict[str, str], why: str) -> None:
    child = start(NODE, *arguments, **environment)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 1
    assert why in errors.splitlines()[-1] or why in errors


def test_what_the_embedded_rclpy_lacks_is_named() -> None:
    script = HEAD + """
for reach in ("rclpy.lifecycle", "rclpy.action.ActionClient", "Node.create_rates", "rclpy.executors.EventsExecutor"):
    try:
        eval(reach)
    except AttributeError as error:
        print(error)
try:
    import rclpy.action
except ModuleNotFoundError as error:
    print(error)
rclpy.init()
try:
    Node("n").create_rate(1.0)
except AttributeError as error:
    print(error)
"""
    output = start(script).communicate(timeout=20)[0]
    for name in ("rclpy.lifecycle", "rclpy.action", "create_rates", "EventsExecutor", "create_rate"):
        assert name in output
    assert len(output.splitlines()) == 6


FORKING = HEAD + """
import os, select, threading, time
from std_msgs.msg import String
from usx_runtime.dds.types import raw_type
for name in ("std_msgs/msg/String", "rmw_dds_common/msg/ParticipantEntitiesInfo"):
    raw_type(name).__idl__.fill_type_data()  # once here instead of 320 times
COUNT, ROUNDS, LIMIT = 16, 20, 30.0
threads = len(os.listdir("/proc/self/task"))

def live(number, told, leave):
    rclpy.init(args=[])
    node, heard, complete, end = Node(f"node_{number}"), set(), False, time.monotonic() + LIMIT
    node.create_subscription(String, "/all", lambda m: heard.add(m.data), 50)
    publisher = node.create_publisher(String, "/all", 50)
    node.create_timer(0.1, lambda: publisher.publish(String(data=node.get_name())))
    while time.monotonic() < end and not select.select([leave], [], [], 0)[0]:
        rclpy.spin_once(node, timeout_sec=0.1)
        if not complete and len(heard) == COUNT:
            complete = True
            assert node.wait_for_node("node_0", 5.0) and node.wait_for_node("node_15", 5.0)
            os.write(told, b"x")
    node.destroy_node()
    rclpy.shutdown()
    assert len(os.listdir("/proc/self/task")) == threads, threading.enumerate()
    return complete

for turn in range(ROUNDS):
    (hear, tell), (leave, hold) = os.pipe(), os.pipe()
    children = []
    for number in range(COUNT):
        child = os.fork()
        if not child:
            os.close(hold)
            try:
                code = 0 if live(number, tell, leave) else 3
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                code = 4
            os._exit(code)
        children.append(child)
    os.close(tell)
    complete = 0
    while complete < COUNT and (got := os.read(hear, COUNT)):
        complete += len(got)
    os.close(hold)  # all leave
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    os.close(hear), os.close(leave)
    print(turn, codes, flush=True)
    if any(codes):
        sys.exit(1)
"""


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}


def processes() -> set[int]:
    """Process ids whose environment carries this test's mark."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"USX_SOAK=1" in (folder / "environ").read_bytes():
                found.add(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.soak
def test_sixteen_nodes_twenty_times_leave_nothing() -> None:
    """Sixteen processes find and hear each other, end, and again, twenty times."""
    before = shared_memory()
    child = start(FORKING, USX_SOAK="1", OPENBLAS_NUM_THREADS="1")
    output, errors = child.communicate(timeout=200)
    assert child.returncode == 0, f"{output[-500:]}\n{errors[-2000:]}"
    assert output.count("\n") == 20
    assert not processes()
    assert shared_memory() <= before
