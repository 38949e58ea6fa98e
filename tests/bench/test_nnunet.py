from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from napari_attention_unet.bench import nnunet
from napari_attention_unet.bench.networks import noise


@given(st.integers(2, 60), st.integers(0, 300))
def test_windows_cover_the_axis_evenly(patch, more):
    size = patch + more
    found = nnunet.starts(size, patch)
    assert found[0] == 0
    assert found[-1] == size - patch
    steps = [b - a for a, b in pairwise(found)]
    assert all(0 < step <= patch / 2 + 1 for step in steps)
    assert not steps or max(steps) - min(steps) <= 1


def test_windows_as_nnunet_documents_them():
    """The example in its documentation: an image of 110, a patch of 64 and a step of 0.5."""
    assert nnunet.starts(110, 64) == [0, 23, 46]


def test_weights_fall_from_the_middle():
    found = nnunet.weights((8, 12, 16))
    assert found[4, 6, 8] == found.max() == 1
    assert found.min() > 0
    assert found[0, 0, 0] < found[2, 3, 4] < found[4, 6, 8]


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("size", [(20, 18, 31), (9, 40, 16), (5, 6, 7)])
def test_what_sees_one_voxel_is_not_changed_by_windows(size, mirror):
    torch.manual_seed(0)
    net = nn.Conv3d(1, 3, 1)
    x = torch.from_numpy(noise(size))[None, None]
    with torch.no_grad():
        found = nnunet.predict(net, x, (16, 16, 16), mirror)
        torch.testing.assert_close(found, net(x), rtol=1e-5, atol=1e-6)


def test_mirroring_is_the_mean_over_all_eight():
    net = nn.Conv3d(1, 2, 3, padding=1)
    x = torch.from_numpy(noise((8, 8, 8)))[None, None]
    expected = torch.zeros(1, 2, 8, 8, 8)
    with torch.no_grad():
        for turned in product((False, True), repeat=3):
            axes = [2 + k for k in range(3) if turned[k]]
            expected += net(x.flip(axes)).flip(axes) / 8
        found = nnunet.predict(net, x, (8, 8, 8), mirror=True)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, net(x))
