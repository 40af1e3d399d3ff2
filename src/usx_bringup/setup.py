from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "usx_bringup"
TOP = Path("../..")  # launch/ and config/ are shown at the top of the workspace

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Launch files, configuration, the demo and its report",
    license="Apache-2.0",
    maintainer="usx maintainers",
    maintainer_email="maintainers@usx-suite.org",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={"": ["*.safetensors", "*.yaml", "*.csv", "*.msg", "*.srv", "*.json", "*.txt", "py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", sorted(map(str, TOP.glob("launch/*.launch.xml")))),
        (f"share/{PACKAGE}/config", sorted(map(str, TOP.glob("config/*.*")))),
    ],
    python_requires=">=3.10",
    install_requires=['numpy>=1.26', 'scipy>=1.11', 'matplotlib>=3.7', 'rich>=13'],
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "demo = usx_bringup.demo:main",
            "make_acquired_pool = usx_bringup.make_acquired_pool:main",
            "when_ready = usx_bringup.node:when_ready",
            "recorder = usx_bringup.node:recorder",
        ],
    },
)
