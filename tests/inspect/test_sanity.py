"""A map that ignores the weights is told apart from one that was learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cause_networks import as_model
from torch import Tensor, nn

import napari_attention_unet as nau
from napari_attention_unet.graph.lower import finished
from napari_attention_unet.inspect.sanity import (
    ignores_weights,
    layers,
    randomised,
    sanity_steps,
)

FLOAT = nau.Settings(precision="float32", device="cpu")


class Edges(nn.Module):
    """A gate that is the size of the image's gradient: there are no weights in it."""

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        smooth = F.avg_pool3d(x, 3, stride=1, padding=1)
        return f * torch.sigmoid(4 * (x - smooth) ** 2)


class Constant(nn.Module):
    """A gate that is about the same everywhere, whatever its weights are."""

    def __init__(self) -> None:
        super().__init__()
        self.psi = nn.Conv3d(4, 1, 1)
        nn.init.constant_(self.psi.weight, 0.0)

    def forward(self, f: Tensor) -> Tensor:
        return f * torch.sigmoid(self.psi(f))


class Learned(nn.Module):
    """A gate of several layers with weights that matter."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(4, 8, 3, padding=1), nn.BatchNorm3d(8))
        self.psi = nn.Sequential(nn.Conv3d(8, 1, 3, padding=1))

    def forward(self, f: Tensor) -> Tensor:
        return f * torch.sigmoid(self.psi(torch.relu(self.first(f))))


class Three(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1))
        self.learned, self.edges, self.constant = Learned(), Edges(), Constant()
        self.head = nn.Sequential(nn.Conv3d(4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        f = torch.relu(self.stem(x))
        return self.head(self.constant(self.edges(x, self.learned(f))))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return as_model(Three())


@pytest.fixture(scope="module")
def volume():
    rng = np.random.default_rng(0)
    blobs = np.zeros((12, 14, 16), np.float32)
    blobs[3:8, 4:10, 5:12] = 2
    return (blobs + 0.3 * rng.normal(size=blobs.shape)).astype(np.float32)


def test_layers_from_the_output_to_the_input(model):
    found = layers(model.graph)
    order = ["head", "constant", "learned.psi", "learned.first", "stem"]
    assert [layer.name for layer in found] == order
    gates = {layer.name: set(layer.gates) for layer in found}
    assert gates["head"] == set()
    assert gates["constant"] == {"constant"}
    assert gates["stem"] >= {"learned", "constant"}
    by_name = {layer.name: layer for layer in found}
    assert "learned.first.0.weight" in by_name["learned.first"].constants
    assert "learned.first.1.running_var" in by_name["learned.first"].constants


def test_shuffled_weights_are_the_same_values_elsewhere(model):
    layer = layers(model.graph)[-1]
    changed = randomised(model, layer.constants, seed=1)
    for name, tensor in model.graph.constants.items():
        other = changed.graph.constants[name]
        if name in layer.constants:
            assert not torch.equal(tensor, other)
            assert torch.equal(tensor.flatten().sort()[0], other.flatten().sort()[0])
            assert tensor.shape == other.shape
        else:
            assert other is tensor
    again = randomised(model, layer.constants, seed=1)
    different = randomised(model, layer.constants, seed=2)
    name = layer.constants[-1]
    assert torch.equal(again.graph.constants[name], changed.graph.constants[name])
    assert not torch.equal(different.graph.constants[name], changed.graph.constants[name])


def test_maps_that_ignore_the_weights_are_exposed(model, volume):
    steps = []
    work = sanity_steps(model, volume, FLOAT)
    while True:
        try:
            steps.append(next(work))
        except StopIteration as end:
            table = end.value
            break
    verdict = ignores_weights(table)
    assert verdict == {"learned": False, "edges": True, "constant": True}
    rows = table.set_index(["mode", "layer", "gate"])
    # what comes after a gate cannot change it, so it has no row there
    assert ("cascading", "constant", "learned") not in rows.index
    assert ("independent", "head", "constant") not in rows.index
    ends = table[(table["mode"] == "cascading") & table["complete"]].set_index("gate")
    assert ends.loc["learned", "layer"] == "stem"
    assert abs(ends.loc["learned", "rank_correlation"]) < 0.8
    assert table["ssim"].between(-1, 1).all()
    assert [step.done for step in steps] == sorted(step.done for step in steps)


def test_randomising_nothing_that_matters_leaves_the_map(model, volume):
    """The check itself is sound: equal weights give equal maps."""
    one = nau.predict(model, volume, FLOAT)
    other = nau.predict(randomised(model, layers(model.graph)[0].constants), volume, FLOAT)
    for gate in model.gates:
        np.testing.assert_array_equal(
            one.gate(gate.name).coefficients, other.gate(gate.name).coefficients
        )
    assert not np.array_equal(one.mask, other.mask)


def test_unusable_wishes_are_refused(model, volume):
    with pytest.raises(nau.InputError, match="'cascading', 'independent'"):
        finished(sanity_steps(model, volume, modes=["backwards"]))
