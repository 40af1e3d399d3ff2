"""Dry run of pip's resolver: do the pinned requirements resolve for every supported Python on x86-64 Linux?

Nothing is installed. Prints a line per version and exits 1 when one does not resolve.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

VERSIONS = ("3.10", "3.11", "3.12")
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 24, 17)] + ["manylinux2014_x86_64",
                                                                                            "manylinux1_x86_64"]


def resolves(version: str) -> bool:
    """Whether pip finds wheels of all requirements for one Python version; its complaint is printed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--dry-run", "-q",
                   "--only-binary=:all:", "--implementation", "cp", "--python-version", version, "--target", folder,
                   "-r", "requirements/dev.txt"]
        for platform in PLATFORMS:
            command += ["--platform", platform]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    print(f"Python {version}: {'resolves' if result.returncode == 0 else 'does NOT resolve'}", *errors, sep="\n  ")
    return result.returncode == 0


if __name__ == "__main__":
    sys.exit(0 if all([resolves(version) for version in VERSIONS]) else 1)
