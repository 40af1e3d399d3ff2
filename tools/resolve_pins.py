"""Dry run of pip's resolver: do the pinned requirements resolve for every supported Python on x86-64 Linux?

Nothing is installed. Prints a line per version and exits 1 when one does not resolve. The markers of our own pins are
evaluated for the version asked; pip itself evaluates those inside other packages for the Python that runs it. Two are
looked up without their dependencies: torch, whose CUDA wheels need packages that its CPU wheels do not, and colcon,
some of whose parts come as source only, which pip cannot resolve for another Python.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

VERSIONS = ("3.10", "3.11", "3.12")
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 24, 17)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux1_x86_64", "linux_x86_64"]
FILES = ("requirements/runtime.txt", "requirements/dev.txt")
ALONE = ("torch==", "colcon-common-extensions==")


def pins(version: str) -> list[str]:
    """The requirements that hold for one Python version, without markers."""
    lines = [line.split("#")[0].strip() for name in FILES for line in Path(name).read_text().splitlines()]
    parsed = [Requirement(line) for line in lines if line and not line.startswith("-r")]
    environment = {"python_version": version, "python_full_version": version + ".0"}
    return [f"{r.name}{r.specifier}" for r in parsed if r.marker is None or r.marker.evaluate(environment)]


def dry_run(version: str, requirements: list[str], *options: str) -> list[str]:
    """pip's complaints about these requirements; none when they resolve."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--dry-run", "-q",
                   "--only-binary=:all:", "--implementation", "cp", "--python-version", version, "--target", folder,
                   *options, *requirements]
        for platform in PLATFORMS:
            command += ["--platform", platform]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    return [] if result.returncode == 0 else [line for line in result.stderr.splitlines() if line.startswith("ERROR")]


def resolves(version: str) -> bool:
    """Whether wheels of all requirements are found for one Python version; prints the verdict."""
    wanted = pins(version)
    alone = [pin for pin in wanted if pin.startswith(ALONE)]
    errors = dry_run(version, [pin for pin in wanted if pin not in alone]) + dry_run(version, alone, "--no-deps")
    print(f"Python {version}: {'does NOT resolve' if errors else 'resolves'} ({len(wanted)} pins)")
    for error in errors:
        print(f"  {error}")
    return not errors


if __name__ == "__main__":
    sys.exit(0 if all([resolves(version) for version in VERSIONS]) else 1)
