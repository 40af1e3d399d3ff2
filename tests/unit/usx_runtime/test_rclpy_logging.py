"""Severities, format and throttling of the console log."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from usx_runtime.rclpy import logging


@pytest.fixture(autouse=True)
def plain_levels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RCUTILS_CONSOLE_OUTPUT_FORMAT", raising=False)
    logging.clear_levels()
    yield
    logging.clear_levels()


def test_the_console_format_is_that_of_ros(capfd: pytest.CaptureFixture[str]) -> None:
    logging.get_logger("some.node").warning("three words here")
    assert re.fullmatch(r"\[WARN\] \[\d+\.\d{9}\] \[some\.node\]: three words here\n", capfd.readouterr().err)


def test_levels_are_inherited(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.get_logger("node")
    logger.debug("unseen")
    logging.set_logger_level("node", logging.LoggingSeverity.DEBUG)
    logger.get_child("part").debug("seen")
    logger.get_child("part").set_level(logging.LoggingSeverity.ERROR)
    logger.get_child("part").warning("unseen")
    text = capfd.readouterr().err
    assert "unseen" not in text and "[node.part]: seen" in text


def test_throttle_once_and_skip_first_belong_to_the_line(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.get_logger("node")
    for number in range(3):
        logger.info(f"once {number}", once=True)
        logger.info(f"throttled {number}", throttle_duration_sec=60.0)
        logger.info(f"skipped {number}", skip_first=True)
    text = capfd.readouterr().err
    assert re.findall(r": (\w+ \d)", text) == ["once 0", "throttled 0", "skipped 1", "skipped 2"]


def test_a_format_and_a_level_can_be_given(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RCUTILS_CONSOLE_OUTPUT_FORMAT", "{name}|{message}")
    logging.get_logger("node").error("text")
    assert capfd.readouterr().err == "node|text\n"
    assert logging.get_logging_severity_from_string("warn") == logging.LoggingSeverity.WARN
    with pytest.raises(RuntimeError, match="loud"):
        logging.get_logging_severity_from_string("loud")
