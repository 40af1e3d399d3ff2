from setuptools import find_packages, setup

PACKAGE = "usx_viewer"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="The browser view of a usx session, where there is no RViz",
    license="Apache-2.0",
    maintainer="usx maintainers",
    maintainer_email="maintainers@usx-suite.org",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={"": ["*.safetensors", "*.yaml", "*.csv", "*.msg", "*.srv", "*.json", "*.txt", "py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    python_requires=">=3.10",
    install_requires=['numpy>=1.26', 'viser>=1.1,<1.2'],
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "viewer_node = usx_viewer.node:main",
        ],
    },
)
