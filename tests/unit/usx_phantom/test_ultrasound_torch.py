"""The model on torch makes the frames of the compiled one: for layers and for CT, in and out of contact."""

import numpy as np
import pytest
import torch
import trimesh

from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_common.transforms import make_transform, rotation_about_axis
from usx_common.volumes import Volume, VolumeGrid
from usx_phantom import scatter
from usx_phantom.probe_geometry import ProbeGeometry
from usx_phantom.scene import SkinSurface
from usx_phantom.ultrasound import UltrasoundSimulator
from usx_phantom.ultrasound_settings import BeamSettings, BoneSettings, ReceiverSettings, UltrasoundSettings
from usx_phantom.ultrasound_torch import TorchUltrasound
from usx_phantom.ultrasound_torch_lines import LineLayer, mix

ROTATION = np.column_stack([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
TILTED = rotation_about_axis([0.2, 0.1, 1.0], 0.15) @ ROTATION
# over the ball, tilted over its edge, off the skin with a part of the face
POSES = [make_transform(ROTATION, [0.0, 0.0, 0.0]), make_transform(TILTED, [-9.0, 1.0, 14.0]),
         make_transform(TILTED, [0.0, 7.0, 31.0])]


class Patient:
    def __init__(self, intensities: Volume | None = None) -> None:
        solid = trimesh.creation.icosphere(4, 18.0)
        self.meshes = {"L3": Mesh(solid.vertices + [2.0, -60.0, 5.0], solid.faces)}
        self.skin = SkinSurface(0.0, 0.0, (4.0, 0.0, 0.0))
        self.intensities = intensities


def ct() -> Volume:
    """Fat over muscle with gas in it, smaller than the field of view."""
    grid = VolumeGrid(np.array([-35.0, -110.0, -30.0]), np.array([2.0, 2.0, 3.0]), (35, 57, 25))
    values = np.full(grid.size[::-1], 55.0)
    y = grid.origin[1] + 2.0 * np.arange(57)
    values[:, y > -22.0] = -100.0
    values[:, (y < -70.0) & (y > -84.0), :9] = -900.0
    return Volume(values + np.random.default_rng(1).normal(0.0, 10.0, values.shape), grid)


def make(intensities: Volume | None, seed: int = 11) -> UltrasoundSimulator:
    settings = UltrasoundSettings(BeamSettings(lines=96, samples=401), BoneSettings(reverberation=0.1),
                                  receiver=ReceiverSettings(sliders=(3.0, 0.0, -2.0)))
    return UltrasoundSimulator(Patient(intensities), ProbeGeometry(columns=320, rows=240), seed, settings)


@pytest.fixture(scope="module", params=["layers", "CT"])
def simulator(request: pytest.FixtureRequest) -> UltrasoundSimulator:
    return make(ct() if request.param == "CT" else None)


def test_echoes_are_laid_as_the_compiled_kernels_lay_them(simulator: UltrasoundSimulator) -> None:
    laid = LineLayer(simulator, torch.device("cpu")).lay([simulator.look(pose) for pose in POSES])
    for n, pose in enumerate(POSES):
        for ours, theirs in zip(laid, simulator.field(pose), strict=True):
            np.testing.assert_allclose(ours[n].numpy(), theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def test_frames_equal_those_of_the_simulator_within_one_grey_level(simulator: UltrasoundSimulator) -> None:
    pictures = TorchUltrasound(simulator).frames(POSES, first_index=4)
    assert pictures.dtype == torch.uint8 and pictures.shape == (3, 240, 320)
    expected = np.array([simulator.frame(pose, 4 + n) for n, pose in enumerate(POSES)])
    difference = np.abs(pictures.numpy().astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-4
    assert expected[0].max() > 150 and expected.mean() > 5


def test_batches_change_nothing(simulator: UltrasoundSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = TorchUltrasound(simulator).frames(POSES)
    monkeypatch.setattr("usx_phantom.ultrasound_torch.FRAMES_AT_ONCE", 2)
    assert torch.equal(TorchUltrasound(simulator).frames(POSES), whole)
    assert TorchUltrasound(simulator).frames([]).shape == (0, 240, 320)


def test_random_places_are_those_of_the_compiled_hash() -> None:
    random = np.random.default_rng(3)
    numbers = random.integers(-2**40, 2**40, (50, 4))
    expected = [scatter.mix(*(np.int64(n) for n in row)) for row in numbers]
    assert mix(*torch.from_numpy(numbers).T).tolist() == expected


@pytest.mark.parametrize("device", ["cuda:97", "nonsense"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(UsxError, match=device) as caught:
        TorchUltrasound(make(None), device)
    assert "\n" not in str(caught.value)
