"""Counters, meters, worker, parameters and levels."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usx_common import levels
from usx_common.counters import StreamCounters
from usx_common.errors import UsxError
from usx_common.parameters import Parameter, document, validate
from usx_common.rates import LatencyMeter, RateMeter
from usx_common.worker import Worker


@given(st.lists(st.sampled_from(["used", "late", "dark", "wait"])))
def test_every_message_is_accounted_for(fates):
    counters = StreamCounters("frames")
    for fate in fates:
        counters.received()
        if fate == "used":
            counters.used()
        elif fate != "wait":
            counters.rejected(fate)
    account = counters.snapshot()
    assert account.pending == fates.count("wait")
    assert account.received == account.used + sum(account.rejected.values()) + account.pending == len(fates)


def test_meters():
    meter = RateMeter(window_s=2.0)
    for i in range(40):
        meter.tick(now=i * 0.1)
    assert meter.rate(now=3.9) == pytest.approx(10.0, abs=0.6)
    assert meter.rate(now=100.0) == 0.0
    latency = LatencyMeter()
    for i in range(101):
        latency.add(i / 100)
    assert latency.percentile(50) == pytest.approx(0.5)


def test_the_worker_keeps_the_newest_and_tells_what_it_dropped():
    gate, begun, done, dropped = threading.Event(), threading.Event(), [], []

    def handle(item):
        begun.set()
        gate.wait(5)
        done.append(item)

    worker = Worker(handle, "test", on_drop=dropped.append)
    worker.submit(1)
    assert begun.wait(5)
    for item in (2, 3, 4):
        assert worker.submit(item)
    gate.set()
    assert worker.flush(5)
    worker.close()
    assert done == [1, 4] and dropped == [2, 3]
    assert not worker.submit(5) and dropped == [2, 3, 5]


def test_the_worker_outlives_an_error_handler_that_fails(monkeypatch):
    printed, done = [], []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: printed.append(arguments.exc_value))

    def handle(item):
        if item == 1:
            raise ValueError("first")
        done.append(item)

    def fail(item, error):
        raise KeyError(str(error))

    worker = Worker(handle, "test", capacity=2, policy="queue", on_error=fail)
    worker.submit(1)
    worker.submit(2)
    assert worker.flush(5) and done == [2]
    assert [type(error) for error in printed] == [KeyError]
    worker.close()


def test_the_worker_with_a_queue_refuses_the_new_and_survives_errors():
    gate, begun, done, dropped, errors = threading.Event(), threading.Event(), [], [], []

    def handle(item):
        begun.set()
        gate.wait(5)
        if item == 2:
            raise RuntimeError("broken")
        done.append(item)

    worker = Worker(handle, "test", capacity=2, policy="queue", on_drop=dropped.append,
                    on_error=lambda item, error: errors.append((item, str(error))))
    worker.submit(1)
    assert begun.wait(5)
    assert [worker.submit(i) for i in (2, 3, 4)] == [True, True, False]
    gate.set()
    assert worker.flush(5)
    worker.close()
    assert done == [1, 3] and dropped == [4] and errors == [(2, "broken")]


TABLE = [
    Parameter("spacing", 0.5, "voxel size, mm", minimum=0.05, maximum=10.0),
    Parameter("count", 3, "how many", minimum=1),
    Parameter("kind", "fan", "mask", choices=("none", "fan")),
    Parameter("matrix", [], "calibration", length=16),
    Parameter("names", [], "titles", element=str),
    Parameter("use", True, "whether"),
    Parameter("even", 2, "even", check=lambda v: "even" if v % 2 else ""),
]
BY_NAME = {p.name: p for p in TABLE}


@pytest.mark.parametrize(("name", "value", "expected"), [
    ("spacing", 1, 1.0), ("count", 7, 7), ("kind", "none", "none"), ("matrix", [], []),
    ("matrix", [1] * 16, [1.0] * 16),
    ("names", ["A"], ["A"]), ("use", False, False), ("even", 4, 4),
])
def test_good_parameters(name, value, expected):
    result = validate(BY_NAME[name], value)
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(("name", "value", "words"), [
    ("spacing", 0.0, "0.05 .. 10"), ("spacing", float("nan"), "finite"), ("spacing", "x", "float"),
    ("spacing", True, "float"),
    ("count", 0, ">= 1"), ("count", 1.5, "int"), ("kind", "box", "none, fan"), ("matrix", [1.0] * 12, "it has 12"),
    ("matrix", 3.0, "a list"), ("names", [1], "str"), ("use", 1, "bool"), ("even", 3, "even"),
    ("matrix", "x" * 16, "list"),
])
def test_bad_parameters_are_named_with_value_and_range(name, value, words):
    with pytest.raises(UsxError) as caught:
        validate(BY_NAME[name], value)
    assert f"'{name}'" in str(caught.value) and words in str(caught.value) and repr(value) in str(caught.value)


def test_the_reference_table_names_every_parameter():
    text = document(TABLE)
    assert all(f"`{p.name}`" in text for p in TABLE) and "0.05 .. 10" in text


def test_levels():
    assert [levels.label_of_level(levels.level_of_label(n)) for n in range(20, 25)] == [20, 21, 22, 23, 24]
    for call in (lambda: levels.level_of_label(0), lambda: levels.label_of_level("T12")):
        with pytest.raises(UsxError):
            call()
