"""The card of the chosen model: what is known of it, what was assumed, what the person says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from panel_helpers import PATIENCE, named, results, run, settle, use_model
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_attention_unet._qt import choices as kept
from napari_attention_unet._qt import class_editor
from napari_attention_unet._qt import models as models_module
from napari_attention_unet._qt.card_facts import assumed, facts_of
from napari_attention_unet._qt.choices import Choices
from napari_attention_unet._qt.class_editor import ClassEditor
from napari_attention_unet._qt.form import Note
from napari_attention_unet._qt.option_form import OptionForm
from napari_attention_unet.describe import describe
from napari_attention_unet.io.layers import RESULT_KEY
from napari_attention_unet.model import load_model
from napari_attention_unet.models import ClassInfo, Normalization, card_file
from napari_attention_unet.models.card_file import card_path
from napari_attention_unet.models.families.oktay import OktayUNet
from napari_attention_unet.models.opened import OptionValue
from napari_attention_unet.predict import predict

CORNERS = OptionValue(
    "align_corners", "choice", (False, True), False, False, False, "Taken as today's torch does."
)
STRIDES = OptionValue("strides", "integers", (), (2, 2), (2, 2), False, "Taken to halve the grid.")


@pytest.fixture(autouse=True)
def _own_memory(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """What is remembered of checkpoints stays within a test."""
    monkeypatch.setattr(
        card_file.platformdirs, "user_config_dir", lambda *_a, **_k: str(tmp_path / "config")
    )


@pytest.fixture
def plain(tmp_path) -> Path:
    """A bare state_dict with two gates and open questions, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = OktayUNet(
            1, 3, (2, 3, 4, 5), gates=1, gating=4, inner=(3, 4), align_corners=False
        ).eval()
        for name, parameter in network.named_parameters():
            if ".psi." in name:  # coefficients that differ from place to place
                parameter.data *= 20
    path = tmp_path / "models" / "plain.pth"
    path.parent.mkdir()
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def panel_of(viewer, qtbot):
    """The panel with a checkpoint chosen; gives viewer and panel."""

    def made(path: Path):
        kept.save(Choices(model=str(path), recent=[str(path)]))
        _dock, panel = viewer.window.add_plugin_dock_widget(
            "napari-attention-unet", "Attention U-Net"
        )
        settle(qtbot, panel)
        return viewer, panel

    return made


def wait_read(qtbot, panel) -> None:
    """Wait until the model is read again."""
    qtbot.waitUntil(lambda: panel.model.facts is not None, timeout=PATIENCE)


# --- the facts ----------------------------------------------------------------------------------


def test_the_facts_are_those_of_the_description(plain: Path):
    description = describe(load_model(plain))
    facts = {fact.label: fact.text.replace("\u200b", "") for fact in facts_of(description)}
    count = sum(
        t.numel() for k, t in torch.load(plain).items() if "running" not in k and "num_" not in k
    )
    assert facts["network"] == f"unet_CT_single_att_dsv_3D\n{count / 1e3:.3g} thousand parameters"
    assert facts["input"] == "1 channel · any voxel size"
    assert facts["extent"] == "multiples of 8, padded to them"
    widths = [f"{w:g}" for w in description.receptive_field]
    assert facts["sees"] == f"{' × '.join(widths)} voxels"
    assert facts["gates"].splitlines() == [
        "attentionblock3.gate_block_1 · 1/8",
        "attentionblock2.gate_block_1 · 1/4",
    ]
    assert description.sha256[:8] in facts["file"]
    assert "runs no code" in facts["file"]


def test_every_kind_of_intensity_and_extent_is_said(plain: Path):
    description = describe(load_model(plain))

    def facts(**changes):
        card_changes = changes.pop("card", {})
        changed = replace(description, card=replace(description.card, **card_changes), **changes)
        return {fact.label: fact.text for fact in facts_of(changed)}

    window = Normalization("window", -100, 240, nonzero=True)
    said = facts(card={"normalization": window, "voxel_size": (2.0, 1.0, 1.0)})
    assert said["intensity"] == "-100 to 240 become 0–1, non-zero voxels alone"
    assert said["input"].endswith("2 × 1 × 1 mm")
    assert facts(card={"normalization": Normalization("percentile")})["intensity"].startswith(
        "percentiles 1–99"
    )
    assert facts(receptive_field=(np.inf,) * 3)["sees"] == "the whole volume"
    assert facts(receptive_field=(5.0, np.inf, 7.0))["sees"] == "5 × all × 7 voxels"
    assert "in tiles" in facts(fixed=True)["extent"]
    assert facts(gates=())["gates"] == "none: mask only"
    assert facts(gates=description.gates * 6)["gates"].endswith("and 4 more")
    assert "allowed by you" in facts(code="a TorchScript program")["file"]


def test_what_an_option_says_is_not_said_twice(plain: Path):
    assumptions = load_model(plain).card.assumptions
    option = replace(CORNERS, help=assumptions[1])
    assert assumed(assumptions, [option]) == [assumptions[0], *assumptions[2:]]


# --- the controls -------------------------------------------------------------------------------


def test_options_become_controls_that_say_whether_they_were_chosen(qtbot):
    form = OptionForm()
    qtbot.addWidget(form)
    form.show_options([CORNERS, STRIDES])
    corners, strides = form.rows
    assert (corners.value, strides.value) == (False, (2, 2))
    assert not corners.stated
    assert CORNERS.help in corners.control.native.toolTip()
    with qtbot.waitSignal(form.changed) as chosen:
        corners.control.native.setCurrentIndex(1)
    assert chosen.args == ["align_corners", True]
    assert corners.stated
    strides.control.native.setText("2, 1")
    with qtbot.waitSignal(form.changed) as chosen:
        strides.control.native.editingFinished.emit()
    assert chosen.args == ["strides", (2, 1)]
    form.show_options([replace(CORNERS, value=True, stated=True), STRIDES])
    assert form.rows == [corners, strides], "the focus is lost where rows are made anew"
    assert (corners.stated, strides.stated) == (True, False)


def test_an_option_that_is_left_as_it_was_is_not_chosen(qtbot):
    form = OptionForm()
    qtbot.addWidget(form)
    form.show_options([STRIDES])
    (row,) = form.rows
    with qtbot.assertNotEmitted(form.changed):
        row.control.native.editingFinished.emit()
        row.control.native.setText("")
        row.control.native.editingFinished.emit()
    assert row.control.value == "2, 2"
    assert not row.stated


def test_a_slip_can_be_taken_back(qtbot):
    form = OptionForm()
    qtbot.addWidget(form)
    form.show_options([STRIDES])
    (row,) = form.rows
    for text, value in (("2, 3, 2", (2, 3, 2)), ("2, 2", (2, 2))):
        row.control.native.setText(text)
        with qtbot.waitSignal(form.changed) as chosen:
            row.control.native.editingFinished.emit()
        assert chosen.args == ["strides", value]


def test_classes_are_named_and_coloured(qtbot, monkeypatch: pytest.MonkeyPatch):
    classes = (
        ClassInfo("background", "#000000"),
        ClassInfo("class 1", "#ff0000"),
        ClassInfo("class 2", "#00ff00"),
    )
    editor = ClassEditor()
    qtbot.addWidget(editor)
    editor.show_classes(classes)
    assert editor.classes == classes
    first, second = editor.rows
    first.name.setText("liver")
    with qtbot.waitSignal(editor.edited):
        first.name.editingFinished.emit()
    monkeypatch.setattr(class_editor, "pick_colour", lambda *_args: "#123456")
    with qtbot.waitSignal(editor.edited):
        second.colour.click()
    assert editor.classes[1:] == (ClassInfo("liver", "#ff0000"), ClassInfo("class 2", "#123456"))
    with qtbot.assertNotEmitted(editor.edited):
        first.name.setText("  ")
        first.name.editingFinished.emit()
        second.colour.click()
    assert first.name.text() == "liver", "a class has to have a name"


# --- in the panel -------------------------------------------------------------------------------


def test_the_card_folds_out_and_nothing_is_cut_off(panel_of, plain: Path, qtbot):
    _viewer, panel = panel_of(plain)
    card = panel.model.card
    assert not card.content.isVisible()
    named(panel, "about_fold").click()
    assert card.content.isVisible()
    assert "attentionblock3.gate_block_1 · 1/8" in card.facts.texts["gates"].replace("\u200b", "")
    assert "voxel size" in card.assumed.text()
    assert panel.width() <= 360
    for note in card.findChildren(Note):
        if note.isVisible():
            assert note.height() >= note.heightForWidth(note.width()), note.text()
    for row in card.classes.rows:
        assert row.name.width() > 80
    named(panel, "copy_hash").click()
    assert QApplication.clipboard().text() == panel.model.facts.description.sha256


def test_named_classes_reach_the_mask_there_is_and_the_next_one(panel_of, plain: Path, qtbot, blob):
    viewer, panel = panel_of(plain)
    viewer.add_image(blob, name="ball")
    run(qtbot, panel)
    (mask,) = results(viewer, "mask")
    assert list(mask.features["class"]) == ["background", "class 1", "class 2"]
    name_class(qtbot, panel, 0, "liver")
    assert list(mask.features["class"]) == ["background", "liver", "class 2"]
    assert "outdated" not in mask.name, "a name changes no voxel"
    assert "liver, class 2" in named(panel, "model_note").text()
    run(qtbot, panel)
    (fresh,) = results(viewer, "mask")
    assert fresh is not mask
    assert list(fresh.features["class"]) == ["background", "liver", "class 2"]
    np.testing.assert_allclose(fresh.colormap.map(1), mask.colormap.map(1))


def test_colours_reach_the_mask(panel_of, plain: Path, qtbot, blob, monkeypatch):
    viewer, panel = panel_of(plain)
    viewer.add_image(blob, name="ball")
    run(qtbot, panel)
    (mask,) = results(viewer, "mask")
    monkeypatch.setattr(class_editor, "pick_colour", lambda *_args: "#336699")
    with qtbot.waitSignal(panel.controller.model_control.described, timeout=PATIENCE):
        panel.model.card.classes.rows[1].colour.click()
    np.testing.assert_allclose(mask.colormap.map(2)[:3], [0.2, 0.4, 0.6], atol=1e-6)


def test_names_are_remembered_by_the_content_of_the_file(panel_of, plain: Path, qtbot):
    _viewer, panel = panel_of(plain)
    name_class(qtbot, panel, 1, "tumour")
    moved = plain.with_name("moved.pth")
    plain.rename(moved)
    assert [c.name for c in load_model(moved).classes] == ["background", "class 1", "tumour"]


def test_a_saved_card_is_picked_up_by_whoever_opens_the_file(
    panel_of, plain: Path, qtbot, tmp_path
):
    _viewer, panel = panel_of(plain)
    name_class(qtbot, panel, 0, "liver")
    with qtbot.waitSignal(panel.controller.model_control.described, timeout=PATIENCE):
        named(panel, "save_card").click()
    assert "plain.pth.card.json" in named(panel, "card_notice").text()
    saved = json.loads(card_path(plain).read_text("utf-8"))
    assert [c["name"] for c in saved["classes"]] == ["background", "liver", "class 2"]
    shutil.rmtree(tmp_path / "config")  # somebody else's computer
    assert [c.name for c in load_model(plain).classes][1] == "liver"


def test_a_folder_that_cannot_be_written_to_is_said_in_words(
    panel_of, plain: Path, qtbot, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_args):
        raise PermissionError(13, "Permission denied")

    _viewer, panel = panel_of(plain)
    monkeypatch.setattr(models_module, "save_card", refuse)
    with qtbot.waitSignal(panel.controller.model_control.described, timeout=PATIENCE):
        named(panel, "save_card").click()
    said = named(panel, "card_notice").text()
    assert str(plain.parent) in said
    assert "Permission denied" in said
    assert panel.model.facts.error == "", "the model can be used all the same"


def test_what_cannot_be_remembered_holds_until_the_end(
    panel_of, plain: Path, qtbot, blob, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_args):
        raise OSError(28, "No space left on device")

    viewer, panel = panel_of(plain)
    monkeypatch.setattr(models_module, "remember_card", refuse)
    name_class(qtbot, panel, 0, "liver")
    assert "No space left" in named(panel, "card_notice").text()
    viewer.add_image(blob, name="ball")
    run(qtbot, panel)
    (mask,) = results(viewer, "mask")
    assert list(mask.features["class"])[1] == "liver"


def test_options_are_assumed_until_chosen_and_go_with_the_run(panel_of, plain: Path, qtbot, blob):
    viewer, panel = panel_of(plain)
    viewer.add_image(blob, name="ball")
    run(qtbot, panel)
    before = {layer.metadata[RESULT_KEY]["gate"]: layer for layer in results(viewer, "gate")}
    row = option(panel, "align_corners")
    assert (row.value, row.stated) == (False, False)
    row.control.native.setCurrentIndex(1)
    assert panel.model.facts is None
    assert not named(panel, "run").isEnabled(), "it would run with the earlier options"
    wait_read(qtbot, panel)
    assert option(panel, "align_corners").stated
    assert not any("align_corners" in text for text in panel.model.facts.card.assumptions)
    run(qtbot, panel)
    expected = predict(load_model(plain, align_corners=True), panel.image.volume())
    gates = results(viewer, "gate")
    assert len(gates) == len(before), "the results of the other options were not replaced"
    for layer, gate in zip(gates, expected.gates, strict=True):
        np.testing.assert_allclose(layer.data, gate.coefficients, atol=1e-6)
    finest = gates[-1]  # the deepest gate lies on the grid of its gating signal
    other = before[finest.metadata[RESULT_KEY]["gate"]]
    assert np.abs(finest.data - other.data).max() > 1e-4
    about = gates[0].metadata[RESULT_KEY]
    assert about["checkpoint_options"]["align_corners"] == {"value": True, "stated": True}
    assert about["checkpoint_options"]["gate_mode"]["stated"] is False
    assert not any("align_corners" in text for text in about["assumptions"])
    assert load_model(plain).card.arguments["align_corners"] is True, "it was not remembered"


def test_an_option_that_does_not_fit_says_so_and_can_be_mended(panel_of, plain, qtbot, monkeypatch):
    pytest.importorskip("monai")
    from monai.networks.nets import AttentionUnet

    with torch.random.fork_rng():
        network = AttentionUnet(3, 1, 2, channels=(4, 6, 8), strides=(2, 2))
    torch.save(network.state_dict(), plain)
    _viewer, panel = panel_of(plain)
    row = option(panel, "strides")
    for text, fits in (("2, 2, 2", False), ("2, 1", True)):
        row.control.native.setText(text)
        with qtbot.waitSignal(panel.controller.model_control.described, timeout=PATIENCE):
            row.control.native.editingFinished.emit()
        assert bool(panel.model.facts.error) is not fits
        assert panel.model.card.isVisible()
        assert not named(panel, "run").isEnabled()
    assert panel.model.facts.stride == (2, 2, 2)
    (remembered,) = (card_file._remembered(panel.model.card.sha256),)
    assert json.loads(remembered.read_text("utf-8"))["arguments"]["strides"] == [2, 1]


def test_activation_and_intensity_are_options_too(panel_of, plain: Path, qtbot):
    _viewer, panel = panel_of(plain)
    assert not option(panel, "normalization").stated
    for name, value in (("activation", "sigmoid"), ("normalization", "zscore-nonzero")):
        row = option(panel, name)
        row.control.value = value
        wait_read(qtbot, panel)
        assert option(panel, name).stated
    card = panel.model.facts.card
    assert card.activation == "sigmoid"
    assert card.normalization == Normalization("zscore", nonzero=True)
    assert not any("z-scored" in text for text in card.assumptions)
    assert "non-zero" in panel.model.card.facts.texts["intensity"]
    again = load_model(plain)
    assert (again.card.activation, again.card.normalization) == ("sigmoid", card.normalization)


def test_of_a_bundled_model_nothing_is_open(viewer, qtbot):
    kept.save(Choices(model="brain-t1"))
    _dock, panel = viewer.window.add_plugin_dock_widget("napari-attention-unet", "Attention U-Net")
    settle(qtbot, panel)
    named(panel, "about_fold").click()
    assert panel.model.card.options.rows == []
    assert not named(panel, "save_card").isVisible()
    assert [row.name.text() for row in panel.model.card.classes.rows] == [
        "grey matter",
        "white matter",
        "CSF",
    ]
    assert "1.5 mm · axes to I, P, L" in panel.model.card.facts.texts["input"]


def test_all_that_was_said_can_be_taken_back(panel_of, plain: Path, qtbot):
    _viewer, panel = panel_of(plain)
    name_class(qtbot, panel, 0, "liver")
    option(panel, "align_corners").control.native.setCurrentIndex(1)
    wait_read(qtbot, panel)
    named(panel, "forget_card").click()
    wait_read(qtbot, panel)
    assert panel.model.facts.classes == ("background", "class 1", "class 2")
    assert (option(panel, "align_corners").value, option(panel, "align_corners").stated) == (
        False,
        False,
    )
    assert load_model(plain).card.arguments["align_corners"] is False


def test_two_checkpoints_keep_apart_what_was_said_of_them(panel_of, plain: Path, qtbot, tmp_path):
    other = tmp_path / "other.pth"
    state = torch.load(plain)
    torch.save({key: tensor * 1.5 for key, tensor in state.items()}, other)
    _viewer, panel = panel_of(plain)
    name_class(qtbot, panel, 0, "liver")
    use_model(qtbot, panel, other)
    assert panel.model.facts.classes[1] == "class 1"
    use_model(qtbot, panel, plain)
    assert panel.model.facts.classes[1] == "liver"


def test_the_keyboard_reaches_all_of_the_card(panel_of, plain: Path, qtbot):
    _viewer, panel = panel_of(plain)
    named(panel, "about_fold").setChecked(True)
    first = named(panel, "model")
    names, widget = [], first
    while True:
        if widget.focusPolicy() & Qt.FocusPolicy.TabFocus and widget.isVisible():
            names.append(widget.objectName())
        widget = widget.nextInFocusChain()
        if widget is first:
            break
    wanted = [
        "model",
        "browse",
        "about_fold",
        *(f"option_{row.option.name}" for row in panel.model.card.options.rows),
        "class_1_colour",
        "class_1_name",
        "class_2_colour",
        "class_2_name",
        "save_card",
        "forget_card",
        "copy_hash",
        "device",
    ]
    assert [name for name in names if name in wanted] == wanted


def name_class(qtbot, panel, index: int, name: str) -> None:
    """Type a name for a class and wait until it holds."""
    row = panel.model.card.classes.rows[index]
    row.name.setText(name)
    with qtbot.waitSignal(panel.controller.model_control.described, timeout=PATIENCE):
        row.name.editingFinished.emit()


def option(panel, name: str):
    """The row of an option."""
    (row,) = (row for row in panel.model.card.options.rows if row.option.name == name)
    return row
