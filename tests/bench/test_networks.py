from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_attention_unet.bench.networks import flops, network, noise
from napari_attention_unet.errors import InputError


def test_work_is_that_counted_by_hand():
    """Two a multiply-add; what is not a convolution or a matrix product counts nothing."""
    net = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1),  # 4*1*27 a voxel
        nn.BatchNorm3d(4),
        nn.ReLU(),
        nn.Conv3d(4, 6, 2, stride=2),  # 6*4*8 an eighth of the voxels
        nn.ConvTranspose3d(6, 2, 4, stride=2, padding=1),  # 6*2*64 an eighth of the voxels
    ).eval()
    voxels = 8 * 6 * 4
    by_hand = 2 * (4 * 27 * voxels + 6 * 4 * 8 * voxels // 8 + 6 * 2 * 64 * voxels // 8)
    assert flops(net, (8, 6, 4)) == by_hand


@pytest.mark.parametrize("name", ["blog2", "monai"])
def test_networks_are_the_same_every_time(name):
    before = torch.random.get_rng_state()
    first, again = network(name), network(name)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not first.training
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    x = torch.from_numpy(noise((16, 16, 16)))[None, None]
    with torch.no_grad():
        assert first(x).std() > 0
    assert first(x).shape == (1, 2, 16, 16, 16)


def test_width_is_in_the_name():
    assert network("blog4").encoder1.encoder_block[0].out_channels == 4
    ratio = flops(network("blog4"), (16, 16, 16)) / flops(network("blog2"), (16, 16, 16))
    assert 3.5 < ratio < 4  # one input channel and two classes do not grow


def test_networks_that_there_are_not():
    with pytest.raises(InputError, match="no network 'blog' to measure; use 'blog16', 'blog64'"):
        network("blog")
