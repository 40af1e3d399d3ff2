from setuptools import find_packages, setup

PACKAGE = "usx_completion"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Shape models that recover complete lumbar vertebrae",
    license="Apache-2.0",
    maintainer="usx maintainers",
    maintainer_email="maintainers@usx-suite.org",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={"": ["*.safetensors", "*.yaml", "*.csv", "*.msg", "*.srv", "*.json", "*.txt", "py.typed"],
                  PACKAGE: ["models/*", "configs/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    python_requires=">=3.10",
    install_requires=['numpy>=1.26', 'scipy>=1.11', 'numba>=0.59', 'safetensors>=0.4', 'rich>=13', 'h5py>=3.8',
                      'opencv-python-headless>=4.8', 'matplotlib>=3.7', 'torch>=2.2', 'PyYAML>=6'],
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "completion_node = usx_completion.node:main",
            "build_shape_model = usx_completion.build_shape_model:main",
            "shape_report = usx_completion.shape_report:main",
            "make_dataset = usx_completion.data.generate:main",
            "dataset_report = usx_completion.data.report:main",
            "evaluate = usx_completion.evaluation.evaluate:main",
            "make_pool = usx_completion.correction.make_pool:main",
            "train = usx_completion.training.train:main",
            "convert_checkpoint = usx_completion.paper.convert_checkpoint:main",
        ],
    },
)
