"""Opening checkpoints of other networks: recognised, rebuilt, and refused with a reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from napari_attention_unet.errors import CheckpointError, InputError
from napari_attention_unet.graph.trace import trace
from napari_attention_unet.model import load_model
from napari_attention_unet.models import open_checkpoint, read_card, save_checkpoint
from napari_attention_unet.models.families.attu_net import AttUNet
from napari_attention_unet.models.families.elektronn3 import ElektronnUNet
from napari_attention_unet.models.families.ivadomed import Modified3DUNet
from napari_attention_unet.models.families.oktay import OktayUNet

WIDTHS = [2, 3, 4, 5, 6]


def oktay(**arguments) -> OktayUNet:
    gates = arguments.setdefault("gates", 1)
    gated = {"gating": 4, "inner": WIDTHS[1:-1]} if gates else {}
    return OktayUNet(1, 2, WIDTHS, **arguments, **gated).eval()


# Named and shaped as the authors' own classes, whose names a whole model's pickle carries.
class GridAttentionBlock3D(nn.Module):
    def __init__(self, gate: nn.Module, mode: str) -> None:
        super().__init__()
        for name, child in gate.named_children():
            self.add_module(name, child)
        self.mode = mode


def pickled_whole(network: OktayUNet, mode: str, path: Path) -> None:
    for level in (2, 3, 4):
        block = network.get_submodule(f"attentionblock{level}")
        block.gate_block_1 = GridAttentionBlock3D(block.gate_block_1, mode)
    torch.save({"net": network, "epoch": 3}, path)


def test_a_whole_model_opens_with_its_hyper_parameters_and_without_its_code(tmp_path, monkeypatch):
    original = oktay(gate_mode="concatenation_residual")
    state = original.state_dict()
    pickled_whole(original, "concatenation_residual", tmp_path / "whole.pt")
    monkeypatch.delitem(sys.modules, __name__)  # its classes cannot be imported
    opened = open_checkpoint(tmp_path / "whole.pt")
    module, card = opened.module, opened.card
    assert card.architecture == "unet_CT_single_att_dsv_3D"
    assert card.arguments["gate_mode"] == "concatenation_residual"
    assert not any("gate_mode" in sentence for sentence in card.assumptions)
    assert any("axes" in sentence for sentence in card.assumptions)
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def test_options_by_keyword_and_what_they_are_confused_with(tmp_path):
    path = tmp_path / "grid.pth"
    torch.save(oktay(shared=True, supervised=False, kernel=(3, 3, 1)).state_dict(), path)
    assert load_model(path).stride == (16, 16, 2)
    turned = load_model(path, axes="xyz", align_corners=True, activation="sigmoid")
    assert turned.stride == (2, 16, 16)
    assert turned.card.activation == "sigmoid"
    assert "Kernels were turned from the order x, y, z to z, y, x." in turned.card.assumptions
    with pytest.raises(CheckpointError, match="unet_grid_attention_3D has no option 'strides'"):
        load_model(path, strides=(2, 2))
    with pytest.raises(InputError, match="no colour"):
        load_model(path, colour="red")


def test_options_are_kept_in_the_card(tmp_path):
    torch.save(oktay(gates=2).state_dict(), tmp_path / "two.pth")
    opened = open_checkpoint(tmp_path / "two.pth", align_corners=True)
    module, card = opened.module, opened.card
    saved = save_checkpoint(tmp_path / "two.safetensors", module, card)
    opened = open_checkpoint(saved)
    again, read = opened.module, opened.card
    assert read == read_card(saved)
    assert read.architecture == "unet_CT_multi_att_dsv_3D"
    assert again.attentionblock2.gate_block_2.align_corners is True
    assert (
        open_checkpoint(
            saved, align_corners=False
        ).module.attentionblock2.gate_block_2.align_corners
        is False
    )


def test_axes_survive_saving(tmp_path):
    torch.save(
        oktay(shared=True, supervised=False, kernel=(3, 3, 1)).state_dict(), tmp_path / "a.pt"
    )
    opened = open_checkpoint(tmp_path / "a.pt", axes="xyz")
    first, card = opened.module, opened.card
    again = open_checkpoint(save_checkpoint(tmp_path / "a.safetensors", first, card)).module
    x = torch.randn(1, 1, 4, 16, 32)
    with torch.no_grad():
        assert torch.equal(first(x), again(x))


@pytest.mark.parametrize(
    ("network", "gates"),
    [
        (oktay(gates=2), 6),
        (oktay(shared=True, supervised=False, kernel=(3, 3, 1)), 3),
        (AttUNet(1, 2, [2, 3, 4], [2, 3]), 2),
        (ElektronnUNet(1, 2, [2, 4, 6], [(3, 3, 3)] * 3, inner=[2, 1]), 2),
        (Modified3DUNet(1, 2, 2), 3),
        (oktay(gates=0), 0),
        (oktay(gates=0, supervised=False, kernel=(3, 3, 1), transposed=True), 0),
        (AttUNet(1, 2, [2, 3, 4]), 0),
        (ElektronnUNet(1, 2, [2, 4, 6], [(3, 3, 3)] * 3), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_every_gate_is_found_and_none_where_there_is_none(tmp_path, network, gates):
    torch.save({"state_dict": network.state_dict()}, tmp_path / "net.pth")
    opened = open_checkpoint(tmp_path / "net.pth")
    module, card = opened.module, opened.card
    assert len(trace(module, 1).gates) == gates
    assert any("mask only" in sentence for sentence in card.assumptions) == (gates == 0)


def test_a_softmax_over_space_is_found_as_one(tmp_path):
    torch.save(oktay().state_dict(), tmp_path / "net.pth")
    module = open_checkpoint(tmp_path / "net.pth", gate_mode="concatenation_residual").module
    assert [gate.kind for gate in trace(module, 1).gates] == ["softmax"] * 3


def test_tensors_beside_the_network_are_left_out_and_named(tmp_path):
    state = {
        f"net.{key}": value for key, value in AttUNet(1, 2, [2, 3, 4], [2, 3]).state_dict().items()
    }
    state["loss.weight"] = torch.ones(2)
    torch.save({"state_dict": state}, tmp_path / "lightning.ckpt")
    card = open_checkpoint(tmp_path / "lightning.ckpt").card
    assert card.architecture == "AttU_Net"
    assert any("1 tensors beside the network" in s and "loss.weight" in s for s in card.assumptions)


def test_an_unknown_network_is_told_what_it_is_most_like(tmp_path):
    state = AttUNet(1, 2, [2, 3, 4], [2, 3]).state_dict()
    del state["Conv_1x1.weight"], state["Conv_1x1.bias"]
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "x.pth")
    message = str(caught.value)
    assert "most like AttU_Net; missing: Conv(_1x1)?.weight" in message
    torch.save({"a.b": torch.ones(1), "c": torch.ones(1)}, tmp_path / "y.pth")
    with pytest.raises(CheckpointError, match="like none of them"):
        open_checkpoint(tmp_path / "y.pth")


def test_tensors_expanded_far_beyond_their_file_are_refused(tmp_path):
    state = AttUNet(1, 2, [2, 3, 4], [2, 3]).state_dict()
    state["Conv1.conv.0.weight"] = torch.zeros(1, dtype=torch.float16).expand(2**20, 2**10, 3, 3, 3)
    torch.save(state, tmp_path / "wide.pth")
    with pytest.raises(CheckpointError, match="many times its own size"):
        open_checkpoint(tmp_path / "wide.pth")


def test_a_compressed_archive_is_refused(tmp_path):
    import zipfile

    torch.save({"a": torch.zeros(4)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    with pytest.raises(CheckpointError, match="its archive is compressed"):
        open_checkpoint(tmp_path / "bomb.pt")


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    zipped=st.booleans(),
    kept=st.floats(0, 1),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
def test_damaged_files_give_one_kind_of_error(tmp_path, zipped, kept, edits):
    path = tmp_path / "net.pth"
    torch.save(
        {"state_dict": {"a": torch.ones(9)}, "at": tmp_path},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    raw = bytearray(path.read_bytes())
    for place, value in edits:
        raw[int(place * len(raw))] = value
    path.write_bytes(raw[: int(kept * len(raw))] if kept < 0.5 else raw)
    with pytest.raises(CheckpointError):  # an unknown network at best
        open_checkpoint(path)
