"""The documents: links that lead somewhere, a parameter reference that is what the nodes declare."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from usx_completion.evaluation.floors import TITLES

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_pictures_exist(page):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def test_the_parameter_reference_is_up_to_date():
    result = subprocess.run([sys.executable, str(ROOT / "tools/document_nodes.py"), "--check"], capture_output=True,
                            text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def evaluation_tool():
    specification = importlib.util.spec_from_file_location("tool", ROOT / "tools/document_evaluation.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_tables_of_an_evaluation_are_copied_into_pages(evaluation_tool):
    report = ("# E\n\n## At a glance\n\n| d | method | n |\n|---|---|---|\n| x | A | 1 |\n| x | B | 2 |\n\n"
              "## Others\n\nno table\n\n## More\n\n| m |\n|---|\n| 3 |\n")
    known = evaluation_tool.tables(report)
    page = ("before\n<!-- table: At a glance; B -->\n| old |\n<!-- end -->\nbetween\n"
            "<!-- table: More -->\n<!-- end -->\nafter\n")
    once = evaluation_tool.filled(page, known)
    assert once == ("before\n<!-- table: At a glance; B -->\n\n| d | method | n |\n|---|---|---|\n| x | B | 2 |\n\n"
                    "<!-- end -->\nbetween\n<!-- table: More -->\n\n| m |\n|---|\n| 3 |\n\n<!-- end -->\nafter\n")
    assert evaluation_tool.filled(once, known) == once
    with pytest.raises(KeyError, match=r"Others.*At a glance, More"):
        evaluation_tool.filled("<!-- table: Others -->\n<!-- end -->", known)


def test_pages_have_blocks_for_what_an_evaluation_prints(evaluation_tool):
    titles = {block[1] for page in evaluation_tool.PAGES
              for block in evaluation_tool.BLOCK.findall((ROOT / "docs" / page).read_text())}
    assert {"At a glance", "Robustness", *(title[0].upper() + title[1:] for title in TITLES.values())} == titles
