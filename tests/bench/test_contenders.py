"""Every contender solves the same task; ours gives every gate as well."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_attention_unet.bench import contenders
from napari_attention_unet.bench.compare import truth
from napari_attention_unet.bench.contenders import CONTENDERS
from napari_attention_unet.bench.networks import noise, randomised
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D

pytest.importorskip("monai")


@pytest.fixture(scope="module")
def near_sighted():
    """A network that looks 11 voxels far at most, so that windows of 32 can come near."""
    torch.manual_seed(0)
    net = randomised(AttentionUNet3D(1, 2, widths=(4,)))
    voxels = noise((48, 40, 32))
    return net, voxels, truth(net, voxels)


@pytest.fixture
def windows(monkeypatch):
    monkeypatch.setattr(contenders, "WINDOW", (32, 32, 32))


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("name", CONTENDERS)
def test_masks_are_near_the_whole_forward(near_sighted, name):
    net, voxels, true = near_sighted
    before = {key: value.clone() for key, value in net.state_dict().items()}
    found = CONTENDERS[name].prepare(net)(voxels, True)
    assert found.mask.shape == voxels.shape
    assert found.logits.shape == (2, *voxels.shape)
    # mirroring asks other questions of a network that is not symmetric
    assert true.agreement(found.mask) > (0.85 if "mirroring" in name else 0.97)
    np.testing.assert_array_equal(found.mask, found.logits.argmax(0))
    for key, value in net.state_dict().items():  # bf16 and layouts are of a copy
        assert torch.equal(value, before[key])
        assert value.dtype == before[key].dtype


@pytest.mark.parametrize("name", ["ours-float32", "ours-auto"])
def test_ours_gives_every_gate(near_sighted, name):
    net, voxels, true = near_sighted
    found = CONTENDERS[name].prepare(net)(voxels, False)
    assert found.logits is None
    assert set(found.gates) == set(true.gates) == {"att1"}
    limit = 1e-5 if CONTENDERS[name].dtype == torch.float32 else 0.02
    assert 0 <= true.gate_errors(found.gates)["att1"] < limit
    assert found.network > 0
    assert found.notes[0].startswith("plan ")


@pytest.mark.usefixtures("windows")
def test_windows_are_an_approximation_and_ours_is_not(near_sighted):
    """The errors tell them apart: they are no artefact of how they are taken."""
    net, voxels, true = near_sighted
    errors = {
        name: true.error(CONTENDERS[name].prepare(net)(voxels, True).logits)
        for name in ("ours-float32", "monai-defaults", "nnunet")
    }
    assert errors["ours-float32"] < 1e-5
    assert errors["monai-defaults"] > 1e-3
    assert errors["nnunet"] > 1e-3


def test_truth_is_cropped_to_the_volume(near_sighted):
    net, _, _ = near_sighted
    assert truth(net, noise((7, 9, 10))).logits.shape == (2, 7, 9, 10)
