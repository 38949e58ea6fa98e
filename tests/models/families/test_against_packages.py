"""Families against the packages they come from, where those are installed."""

from __future__ import annotations

import pytest
import torch
from recording import difference, randomise, run
from torch import nn

from napari_attention_unet.models.families import FAMILIES

SHAPE = (1, 1, 16, 16, 32)


def compare(network: nn.Module, gates: int, shape=SHAPE, logits_of: str = "", **options) -> None:
    """The family rebuilds `network` from its state dict alone: same logits, same maps."""
    network = randomise(network, seed=sum(shape))
    kept = {}
    if logits_of:  # the package ends in an activation: listen to the layer before it
        layer = network.get_submodule(logits_of)
        layer.register_forward_hook(lambda _m, _i, out: kept.update(logits=out))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    expected, expected_maps = run(network, x.clone())  # some packages write into their input
    state = network.state_dict()
    built = next(f for f in FAMILIES if f.matches(state)).build(state, **options)
    got, maps = run(built.module, x)
    assert difference(got, kept.get("logits", expected)) <= 1e-4
    assert len(maps) == len(expected_maps) == gates
    assert max(map(difference, maps, expected_maps), default=0.0) <= 1e-4


@pytest.mark.parametrize(
    ("channels", "strides", "more", "options"),
    [
        ((5, 7), (2,), {}, {}),
        ((5, 7, 9, 11), (2, 2, 2), {"dropout": 0.3}, {}),
        ((3, 4, 5, 7), (2, 2, 2), {"kernel_size": 5}, {}),
        ((5, 7, 9), (2, 1), {}, {"strides": (2, 1)}),
        ((5, 7, 9), ((1, 2, 2), 2), {"up_kernel_size": 5}, {"strides": ((1, 2, 2), 2)}),
    ],
)
def test_monai(channels, strides, more, options):
    nets = pytest.importorskip("monai.networks.nets")
    net = nets.AttentionUnet(3, 1, 3, channels=channels, strides=strides, **more)
    compare(net, len(channels) - 1, **options)


def test_monai_strides_of_the_wrong_number_are_refused():
    nets = pytest.importorskip("monai.networks.nets")
    state = nets.AttentionUnet(3, 1, 2, channels=(4, 8, 16), strides=(2, 2)).state_dict()
    from napari_attention_unet.errors import CheckpointError

    family = next(f for f in FAMILIES if f.matches(state))
    with pytest.raises(CheckpointError, match="needs as many"):
        family.build(state, strides=(2,))


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ({"start_filts": 6}, {}),
        ({"start_filts": 6, "activation": "prelu", "full_norm": False}, {}),
        (
            {"start_filts": 8, "normalization": "group4", "activation": "leaky"},
            {"groups": 4, "nonlinearity": "leaky"},
        ),
        (
            {"start_filts": 6, "up_mode": "resizeconv_linear", "planar_blocks": (0,)},
            {"upsample": "trilinear"},
        ),
        (
            {"start_filts": 6, "merge_mode": "add", "normalization": "instance"},
            {"norm": "instance"},
        ),
    ],
)
@pytest.mark.parametrize("attention", [True, False])
def test_elektronn3(more, options, attention):
    unet = pytest.importorskip("elektronn3.models.unet")
    net = unet.UNet(out_channels=3, n_blocks=3, attention=attention, **more)
    compare(net, 2 if attention else 0, **options)


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ({"f_maps": 8, "num_levels": 3}, {}),
        ({"f_maps": [6, 9, 12], "num_groups": 3}, {"groups": 3}),
        ({"f_maps": [5, 7, 9], "layer_order": "bcl"}, {"order": "bcl"}),
    ],
)
def test_pytorch3dunet(more, options):
    model = pytest.importorskip("pytorch3dunet.unet3d.model")
    compare(model.ResidualUNetSE3D(1, 3, **more), 5, logits_of="final_conv", **options)


@pytest.mark.parametrize(
    ("more", "gates"),
    [
        ({"normalization": "bn"}, 2),
        ({"normalization": "in", "upsample_layer": "upsampling", "larger_io": False}, 2),
        ({"normalization": "none", "conv_block_order": "norm_act_conv"}, 2),
        ({"separated_decoders": True, "output_channels": [2, 1]}, 4),
    ],
)
def test_biapy(more, gates):
    module = pytest.importorskip("biapy.models.attention_unet")
    more = {"output_channel_info": ["F", "D"], "output_channels": [3], "isotropy": True, **more}
    net = module.Attention_U_Net(
        image_shape=(16, 16, 32, 1),
        activation="elu",
        feature_maps=[6, 8, 11],
        drop_values=[0.1] * 3,
        conv_layers=[2, 1, 2],
        **more,
    )
    compare(net, gates)
