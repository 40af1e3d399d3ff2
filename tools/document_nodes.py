"""Write docs/parameters.md from the nodes' own parameter tables, so that the reference cannot drift.

    .venv/bin/python tools/document_nodes.py            write it
    .venv/bin/python tools/document_nodes.py --check    exit 1 when it is out of date
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from usx_common.parameters import document

NODES = {"compounding_node": "usx_compounding", "xray_node": "usx_xray", "registration_node": "usx_registration",
         "completion_node": "usx_completion", "viewer_node": "usx_viewer"}
TARGET = Path(__file__).parents[1] / "docs" / "parameters.md"
HEAD = """# Parameters of the nodes

Written by `tools/document_nodes.py` from the tables in each package's `parameters.py`. A bad value is refused with a
message that names the parameter, the value and the range. Defaults for the launch files are in `config/`.
"""


def text() -> str:
    """The whole page."""
    parts = [HEAD]
    for node, package in NODES.items():
        parts += [f"\n## {node}\n", document(importlib.import_module(f"{package}.parameters").TABLE)]
    return "\n".join(parts)


def main() -> int:
    if "--check" in sys.argv:
        fresh = TARGET.is_file() and TARGET.read_text() == text()
        print("docs/parameters.md is up to date" if fresh else "docs/parameters.md is out of date: run this tool")
        return 0 if fresh else 1
    TARGET.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
