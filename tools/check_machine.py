"""Before the virtual environment is made: is this Python supported, and are the wheels' system libraries there?

Runs with the system's Python and nothing but its standard library. Missing libraries are installed with apt where
that is allowed (root, or sudo without a password); else one line to type is printed.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys

SUPPORTED = ((3, 10), (3, 12))
VERIFIED = (3, 11)
LIBRARIES = {
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libgomp.so.1": "libgomp1",
    "libX11.so.6": "libx11-6",
}


def missing_packages() -> list[str]:
    """Debian packages of the libraries that the wheel of open3d loads and this machine lacks."""
    missing = []
    for library, package in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(package)
    return missing


def install(packages: list[str]) -> bool:
    """Try apt without asking for a password; whether it worked."""
    if shutil.which("apt-get") is None:
        return False
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if prefix and shutil.which("sudo") is None:
        return False
    print(f"== installing system libraries: {' '.join(packages)}", flush=True)
    commands = [["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", *packages]]
    return all(subprocess.run(prefix + command, stdout=subprocess.DEVNULL, check=False).returncode == 0
               for command in commands)


def main() -> int:
    version = sys.version_info[:2]
    name = ".".join(map(str, version))
    if not SUPPORTED[0] <= version <= SUPPORTED[1]:
        print(f"error: Python {name} is not supported; use 3.10, 3.11 or 3.12, e.g.: make PYTHON=python3.11 demo")
        return 1
    if version != VERIFIED:
        print(f"note: Python {name} is expected to work; 3.11 is the one that was verified")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        print(f"error: this Python cannot make virtual environments; type: sudo apt-get install python{name}-venv")
        return 1
    packages = missing_packages()
    if packages and not install(packages):
        print(f"note: system libraries are missing; type: sudo apt-get install -y {' '.join(packages)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
