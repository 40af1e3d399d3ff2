"""Substitutions of launch files, in the words of ROS 2's XML front end."""

from __future__ import annotations

from pathlib import Path

import pytest

from usx_runtime.launch.substitutions import Scope, expand, split_words
from usx_runtime.user_error import UserError


@pytest.fixture
def scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scope:
    index = tmp_path / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    (index / "robot").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    return Scope(
        Path("/folder/file.launch.xml"),
        variables={"bag": "/data/a b", "which": "robot", "empty": ""},
        environment={"HOME": "/home/me"},
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("$(var bag)/x", "/data/a b/x"),
        ("$(var bag)$(var which)", "/data/a brobot"),
        ("a$(var empty)b", "ab"),
        ("$(var absent fallback)", "fallback"),
        ("$(env HOME)", "/home/me"),
        ("$(env ABSENT here)", "here"),
        ("$(env ABSENT '')", ""),
        ("$(env ABSENT 'two words')", "two words"),
        ("$(env ABSENT $(var which))", "robot"),
        ("$(dirname)/../x", "/folder/../x"),
        ("$(filename)", "/folder/file.launch.xml"),
        (r"\$(var bag)", "$(var bag)"),
        ("costs 5$", "costs 5$"),
    ],
)
def test_expansion(text: str, expected: str, scope: Scope) -> None:
    assert expand(text, scope) == expected


def test_packages_are_found_by_a_nested_name(scope: Scope, tmp_path: Path) -> None:
    assert expand("$(find-pkg-share $(var which))/launch", scope) == f"{tmp_path}/share/robot/launch"
    assert expand("$(find-pkg-prefix robot)", scope) == str(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$(var absent)", "no argument or variable 'absent'"),
        ("$(env ABSENT)", "environment variable 'ABSENT' is not set"),
        ("$(find-pkg-share moon)", "package 'moon' not found"),
        ("$(eval 1 + 1)", "'\\$\\(eval 1 \\+ 1\\)' is not supported"),
        ("$(command ls)", "not supported"),
        ("$()", "not supported"),
        ("$(var bag", "no closing parenthesis"),
        ("$(var)", "got 0 arguments"),
        ("$(var a b c)", "got 3 arguments"),
        ("$(env HOME 'open)", "no closing"),
    ],
)
def test_what_is_refused(text: str, message: str, scope: Scope) -> None:
    with pytest.raises(UserError, match=message):
        expand(text, scope)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ros2 bag play x --clock", ["ros2", "bag", "play", "x", "--clock"]),
        ("play $(var bag) $(env A 'b c')", ["play", "$(var bag)", "$(env A 'b c')"]),
        ("echo 'a b'\"c d\"e ''", ["echo", "a bc de", ""]),
        ("  a\n\tb  ", ["a", "b"]),
        ("--x=$(var bag)/y", ["--x=$(var bag)/y"]),
        ("'$(var bag)'", ["$(var bag)"]),
        ("", []),
    ],
)
def test_splitting_into_words(line: str, words: list[str]) -> None:
    assert split_words(line) == words


def test_an_open_quotation_is_refused() -> None:
    with pytest.raises(UserError, match="no closing quotation"):
        split_words("echo 'a")
