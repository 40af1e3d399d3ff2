from setuptools import find_packages, setup

PACKAGE = "usx_registration"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Cone-beam CT to ultrasound, placing the X-ray, splitting levels and the quality gate",
    license="Apache-2.0",
    maintainer="usx maintainers",
    maintainer_email="maintainers@usx-suite.org",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={"": ["*.safetensors", "*.yaml", "*.csv", "*.msg", "*.srv", "*.json", "*.txt", "py.typed",
                       "data/*.json"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    python_requires=">=3.10",
    install_requires=['numpy>=1.26', 'scipy>=1.11'],
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "registration_node = usx_registration.node:main",
        ],
    },
)
