from setuptools import find_packages, setup

PACKAGE = "usx_phantom"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Digital lumbar spine phantom: shapes, ultrasound and X-ray simulation, acquisitions",
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
    install_requires=["numpy>=1.26", "scipy>=1.11", "numba>=0.59", "SimpleITK>=2.3", "pydicom>=3.0.2", "rosbags>=0.11",
                      "rich>=13", "matplotlib>=3.7", "PyYAML>=6", "torch>=2.2"],
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "compare_shapes = usx_phantom.shape_comparison:main",
            "fit_mean_shapes = usx_phantom.shape_fitting:main",
            "imaging_pictures = usx_phantom.imaging_pictures:main",
            "import_labelmap = usx_phantom.import_labelmap:main",
            "make_phantom = usx_phantom.make_phantom:main",
            "phantom_pictures = usx_phantom.phantom_pictures:main",
            "posture_report = usx_phantom.posture_report:main",
            "shape_report = usx_phantom.shape_report:main",
            "ultrasound_report = usx_phantom.ultrasound_report:main",
            "xray_report = usx_phantom.xray_report:main",
        ],
    },
)
