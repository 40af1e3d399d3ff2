"""Copy the tables and pictures of an evaluation into docs/, so that no figure there was typed.

    .venv/bin/usx run usx_completion evaluate --out out/evaluation --acquisition ...
    .venv/bin/python tools/document_evaluation.py out/evaluation

In a page, what stands between ``<!-- table: SECTION -->`` and ``<!-- end -->`` becomes the table of that section of
table.md; ``<!-- table: SECTION; A, B -->`` takes the rows of methods A and B alone.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("evaluation.md", "usx-network.md")
PICTURES = ("cases.png", "robustness.png")
BLOCK = re.compile(r"(<!-- table: ([^;>]+?)(?:; ([^>]+?))? -->\n)(.*?)(<!-- end -->)", re.DOTALL)
METHOD_COLUMN = 2


def tables(report: str) -> dict[str, list[str]]:
    """Lines of the first table under each heading of level two."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^## ", report, flags=re.MULTILINE)[1:]:
        title, _, rest = part.partition("\n")
        table = re.search(r"(?:^\|.*\n?)+", rest, flags=re.MULTILINE)
        if table:
            found[title.strip()] = table.group().splitlines()
    return found


def filled(page: str, known: dict[str, list[str]]) -> str:
    """The page with its blocks filled. Raises KeyError for a section that the report lacks."""
    def fill(block: re.Match[str]) -> str:
        begin, title, methods, _, end = block.groups()
        if title not in known:
            raise KeyError(f"table.md has no section {title!r} with a table; it has {', '.join(known)}")
        lines = known[title]
        if methods:
            wanted = {name.strip() for name in methods.split(",")}
            lines = lines[:2] + [line for line in lines[2:] if line.split("|")[METHOD_COLUMN].strip() in wanted]
        return begin + "\n" + "\n".join(lines) + "\n\n" + end

    return BLOCK.sub(fill, page)


def main() -> int:
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "table.md").is_file():
        print(__doc__)
        return 1
    folder = Path(sys.argv[1])
    known = tables((folder / "table.md").read_text(encoding="utf-8"))
    for name in PAGES:
        path = DOCS / name
        path.write_text(filled(path.read_text(encoding="utf-8"), known), encoding="utf-8")
    for name in PICTURES:
        shutil.copyfile(folder / name, DOCS / "images" / f"evaluation-{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
