"""The torch receiver makes the frames of the compiled one."""

import numpy as np
import pytest
import torch
import trimesh

from usx_common.errors import UsxError
from usx_common.meshes import Mesh
from usx_common.transforms import make_transform
from usx_phantom.scene import SkinSurface
from usx_phantom.ultrasound import UltrasoundSimulator
from usx_phantom.ultrasound_torch import TorchReceiver

ROTATION = np.column_stack([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
POSES = [make_transform(ROTATION, [0.0, 0.0, z]) for z in (0.0, 7.0, 31.0)]


class Patient:
    def __init__(self) -> None:
        solid = trimesh.creation.icosphere(4, 18.0)
        self.meshes = {"L3": Mesh(solid.vertices + [2.0, -70.0, 5.0], solid.faces)}
        self.skin = SkinSurface(0.0, 0.0, (4.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def simulator() -> UltrasoundSimulator:
    return UltrasoundSimulator(Patient(), seed=11)


def test_frames_equal_those_of_the_simulator_within_one_grey_level(simulator: UltrasoundSimulator) -> None:
    pictures = TorchReceiver(simulator).frames(POSES, first_index=4)
    assert pictures.dtype == torch.uint8 and pictures.shape == (3, 480, 640)
    expected = np.array([simulator.frame(pose, 4 + n) for n, pose in enumerate(POSES)])
    difference = np.abs(pictures.numpy().astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-4
    assert expected.max() > 150


def test_envelopes_equal_those_of_the_simulator(simulator: UltrasoundSimulator) -> None:
    field = [torch.from_numpy(part)[None] for part in simulator.field(POSES[0])]
    envelope = TorchReceiver(simulator).envelopes(*field, [simulator.noise_salt(9)])[0].numpy()
    np.testing.assert_allclose(envelope, simulator.envelope(POSES[0], 9), rtol=1e-3, atol=1e-4)


def test_the_number_of_threads_changes_nothing(simulator: UltrasoundSimulator) -> None:
    receiver = TorchReceiver(simulator)
    assert torch.equal(receiver.frames(POSES, threads=1), receiver.frames(POSES, threads=3))


@pytest.mark.parametrize("device", ["cuda:97", "nonsense"])
def test_a_device_that_is_not_there_is_refused(simulator: UltrasoundSimulator, device: str) -> None:
    with pytest.raises(UsxError, match=device) as caught:
        TorchReceiver(simulator, device)
    assert "\n" not in str(caught.value)
