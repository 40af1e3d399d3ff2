from setuptools import find_packages, setup

PACKAGE = "usx_compounding"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Tracked ultrasound frames to a bone surface and a volume",
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
    install_requires=["numpy>=1.26", "scipy>=1.11", "numba>=0.59", "SimpleITK>=2.3", "PyYAML>=5.4", "rich>=13",
                      "torch>=2.2", "rosbags>=0.11"],
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "compounding_node = usx_compounding.node:main",
            "igs_to_bag = usx_compounding.igs_to_bag:main",
            "compound = usx_compounding.compound_cli:main",
        ],
    },
)
