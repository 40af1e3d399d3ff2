from setuptools import find_packages, setup

PACKAGE = "usx_xray"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="X-ray and cone-beam CT: receiving, reading and vertebral bodies",
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
    install_requires=[
        "numpy>=1.26", "scipy>=1.11", "opencv-python-headless>=4.8", "pydicom>=3.0.2", "pynetdicom>=3.0.4",
        "pylibjpeg>=2.0", "pylibjpeg-libjpeg>=2.0", "pylibjpeg-openjpeg>=2.0", "pyyaml>=6.0", "rich>=13",
    ],
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "xray_node = usx_xray.node:main",
            "inspect_dicom = usx_xray.inspect_cli:main",
        ],
    },
)
