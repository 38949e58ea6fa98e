"""The description says what the model is, in plain values."""

from __future__ import annotations

import json

import torch
from torch import nn

from napari_attention_unet.describe import describe
from napari_attention_unet.model import load_model


def test_the_bundled_model_in_plain_values():
    model = load_model("brain-t1")
    told = describe(model)
    assert told.parameters == 2_321_868
    assert [(g.name, g.kind) for g in told.gates] == [(f"att{n}", "sigmoid") for n in (4, 3, 2, 1)]
    assert (told.card, told.sha256, told.code, told.fixed) == (model.card, model.sha256, "", False)
    plain = json.loads(json.dumps(told.to_dict(), allow_nan=False))
    assert plain["name"] == "brain-t1"
    assert plain["gates"][0]["scale"] == [8, 8, 8]
    assert plain["receptive_field"] == [266, 266, 266]


def test_what_looks_at_the_whole_volume_has_no_width():
    network = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.InstanceNorm3d(2))
    told = describe(load_model(network))
    assert told.to_dict()["receptive_field"] == [None] * 3
    assert told.parameters == sum(p.numel() for p in network.parameters())
    assert all(torch.isinf(torch.tensor(w)) for w in told.receptive_field)
