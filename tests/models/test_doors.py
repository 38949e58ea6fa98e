"""Programs, bundles, packages and networks by their class: each opens, with the trust it needs."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from small_networks import Gated, Squashed, gated, known, randomised

from napari_attention_unet.errors import CheckpointError, GraphError, TrustRequired
from napari_attention_unet.graph.evaluate import run
from napari_attention_unet.model import load_model
from napari_attention_unet.models import ModelCard, Normalization, trust
from napari_attention_unet.models.card_file import save_card

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")
SIZE = (16, 24, 32)


def same(model, network) -> None:
    x = torch.randn(1, model.in_channels, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(run(model.graph, x)[0], network(x), rtol=0, atol=0)


def needs_trust(path, what: str, **options):
    with pytest.raises(TrustRequired) as caught:
        load_model(path, **options)
    assert what in str(caught.value)
    return caught.value


# A class that is named.


@pytest.mark.parametrize("kind", ["safetensors", "torch", "wrapped"])
def test_a_network_by_its_class(tmp_path, kind):
    network, path = gated(width=5), tmp_path / "net.ckpt"
    state = network.state_dict()
    if kind == "safetensors":
        save_file(state, path)
    else:
        wrapped = {"state_dict": {f"model.{k}": v for k, v in state.items()}}
        torch.save(wrapped if kind == "wrapped" else state, path)
    asked = {"architecture": "small_networks:Gated", "arguments": {"width": 5}}
    error = needs_trust(path, "Python class small_networks:Gated", **asked)
    model = load_model(path, trust=True, **asked)
    assert model.architecture == "small_networks:Gated"
    assert model.code == "the Python class small_networks:Gated"
    assert [(g.name, g.kind) for g in model.gates] == [("gate", "sigmoid")]
    same(model, network)
    trust.remember(error.sha256)
    load_model(path, **asked)
    needs_trust(path, "Python class", **{**asked, "arguments": {"width": 4}})
    save_card(path, model.card)  # names the class; the yes is remembered
    same(load_model(path), network)
    trust.forget(error.sha256)
    needs_trust(path, "Python class")


@pytest.mark.parametrize(
    ("architecture", "arguments", "words"),
    [
        ("Gated", {}, "does not name a class"),
        ("small_networks:", {}, "does not name a class"),
        ("small_networks:Nothing", {}, "no 'Nothing' in the Python module 'small_networks'"),
        ("nowhere_at_all:Net", {}, "Install its package"),
        ("small_networks:NoNetwork", {}, "gives a NoNetwork; a class derived from torch.nn.Module"),
        ("small_networks:Gated", {"depth": 3}, r"cannot be made with depth=3: TypeError"),
        ("small_networks:Gated", {"width": 6}, r"other shape: enter.weight \(5, 1"),
        ("torch.nn:ReLU", {}, "not known: enter.weight"),
    ],
)
def test_a_class_that_does_not_fit_is_said(tmp_path, architecture, arguments, words):
    torch.save(gated(width=5).state_dict(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=words):
        load_model(tmp_path / "net.pth", trust=True, architecture=architecture, arguments=arguments)


def test_an_unknown_network_is_told_how_to_name_its_class(tmp_path):
    torch.save(gated().state_dict(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"architecture='package.module:Class'"):
        load_model(tmp_path / "net.pth")


# Programs.


def scripted(path, network, traced=False) -> Path:
    x = torch.zeros(1, 1, *SIZE)
    (torch.jit.trace(network, x) if traced else torch.jit.script(network)).save(str(path))
    return path


def exported(path, network, dynamic=False) -> Path:
    dims = {2 + i: 2 * torch.export.Dim(n, min=2, max=1000) for i, n in enumerate("zyx")}
    x = torch.zeros(1, network.enter.in_channels, *SIZE)
    program = torch.export.export(network, (x,), dynamic_shapes=(dims,) if dynamic else None)
    torch.export.save(program, path)
    return path


@pytest.mark.parametrize("traced", [True, False])
def test_torchscript(tmp_path, traced):
    network = gated()
    path = scripted(tmp_path / "net.ts", network, traced)
    error = needs_trust(path, "is a TorchScript program. It is code as well as weights")
    assert error.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    model = load_model(path, trust=True)
    assert (model.in_channels, model.code) == (1, "a TorchScript program")
    assert [(g.name, g.kind, g.grid.scale) for g in model.gates] == [("gate", "sigmoid", (2, 2, 2))]
    assert not model.graph.fixed
    same(model, network)
    trust.remember(error.sha256, path.name)
    assert load_model(path).sha256 == error.sha256


def test_half_precision_torchscript_runs_in_float32(tmp_path):
    path = scripted(tmp_path / "net.ts", gated().half())
    assert load_model(path, trust=True).graph.dtype == torch.float32


@pytest.mark.parametrize("dynamic", [True, False])
def test_exported_programs(tmp_path, dynamic):
    network = gated(channels=2)
    path = exported(tmp_path / "net.pt2", network, dynamic)
    needs_trust(path, "is a torch.export program")
    model = load_model(path, trust=True)
    assert model.in_channels == 2
    assert [(g.name, g.kind) for g in model.gates] == [("gate", "sigmoid")]
    assert model.graph.fixed == (not dynamic)
    assert model.stride == ((2, 2, 2) if dynamic else SIZE)
    same(model, network)


def test_exported_programs_that_hold_pickles_are_flagged(tmp_path):
    path = exported(tmp_path / "net.pt2", gated())
    assert "does hold such data" not in needs_trust(path, "torch.export").why
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("net/data/weights/model.pt", b"\x80\x02.")
    assert "This file does hold such data" in needs_trust(path, "torch.export").why


def test_a_program_for_other_inputs_is_refused(tmp_path):
    program = torch.export.export(gated(), (torch.zeros(2, 1, 8, 8, 8),))
    torch.export.save(program, tmp_path / "two.pt2")
    with pytest.raises(CheckpointError, match=r"exported for inputs of the shapes \[\(2, 1, 8, 8"):
        load_model(tmp_path / "two.pt2", trust=True)


def test_networks_that_end_in_a_sigmoid_are_not_given_another(tmp_path):
    path = scripted(tmp_path / "net.ts", randomised(Squashed(classes=1)))
    model = load_model(path, trust=True)
    assert model.card.activation == "none"
    assert any("ends in a sigmoid" in s for s in model.card.assumptions)
    assert not any("logits" in s for s in model.card.assumptions)
    assert load_model(path, trust=True, activation="sigmoid").card.activation == "sigmoid"
    plain = load_model(scripted(tmp_path / "p.ts", gated(classes=1)), trust=True)
    assert plain.card.activation == "sigmoid"


class OneSize(Gated):
    """Holds the sizes of its example in its code, as careless tracing leaves them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.enter(x))
        alpha = self.gate(self.down(y))
        return self.leave(y * torch.nn.functional.interpolate(alpha, size=[16, 24, 32]))


def test_torchscript_of_one_size_runs_at_the_size_that_is_said(tmp_path):
    network = randomised(OneSize())
    path = scripted(tmp_path / "net.ts", network)
    with pytest.raises(GraphError, match=r"extent=\(z, y, x\)"):
        load_model(path, trust=True)
    model = load_model(path, trust=True, extent=SIZE)
    assert model.graph.fixed
    assert model.stride == SIZE
    assert [g.grid.scale for g in model.gates] == [(2, 2, 2)]
    same(model, network)


@pytest.mark.parametrize("kind", ["ts", "pt2"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_damaged_programs_are_said_before_and_after_trust(tmp_path, kind, kept):
    path = (scripted if kind == "ts" else exported)(tmp_path / f"net.{kind}", gated())
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(CheckpointError):
        load_model(path, trust=True)


# MONAI bundles.

PREPROCESSING = {
    "_target_": "Compose",
    "transforms": [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
        {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 2.0]},
        {
            "_target_": "ScaleIntensityRanged",
            "a_min": -57,
            "a_max": 164,
            "b_min": 0,
            "b_max": 1,
            "clip": True,
        },
    ],
}
METADATA = {
    "version": "0.5.9",
    "name": "Spleen",
    "description": "Finds the spleen.",
    "network_data_format": {
        "inputs": {
            "image": {"num_channels": 1, "spatial_shape": [16, 24, 32], "channel_def": {"0": "CT"}}
        },
        "outputs": {"pred": {"num_channels": 2, "channel_def": {"0": "background", "1": "spleen"}}},
    },
}


def bundle(folder, state=None, script=None, definition=None, kind="json") -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    config = {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "device": "$torch.device('cpu')",
        "network_def": definition or {},
        "preprocessing": PREPROCESSING,
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    text = json.dumps(config) if kind == "json" else yaml.safe_dump(config)
    (folder / "configs" / f"inference.{kind}").write_text(text)
    if state is not None:
        torch.save(state, folder / "models" / "model.pt")
    if script is not None:
        scripted(folder / "models" / "model.ts", script)
    return folder


def says_what_the_bundle_says(card: ModelCard) -> None:
    assert card.name == "Spleen"
    assert card.orientation == "RAS"
    assert card.voxel_size == (1.5, 1.5, 2.0)
    assert card.normalization == Normalization("window", -57, 164)
    assert [c.name for c in card.classes] == ["background", "spleen"]
    assert card.channel_names == ("CT",)
    assert card.version == "0.5.9"
    assert not any("z-scored" in s or "orientation" in s or "names" in s for s in card.assumptions)


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_a_bundle_of_a_known_network_needs_no_trust(tmp_path, kind):
    nets = pytest.importorskip("monai.networks.nets")
    arguments = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [2, 4, 6],
        "strides": [2, 1],
    }
    network = randomised(nets.AttentionUnet(**arguments))
    definition = {"_target_": "AttentionUnet", **arguments}
    model = load_model(
        bundle(tmp_path / "b", network.state_dict(), definition=definition, kind=kind)
    )
    says_what_the_bundle_says(model.card)
    assert model.card.arguments["strides"] == (2, 1)  # from the configuration
    assert model.code == ""
    assert len(model.gates) == 2
    same(model, network)


def test_a_bundle_of_another_network_needs_trust_and_monai(tmp_path):
    pytest.importorskip("monai")
    network = gated(width=3)
    definition = {"_target_": "scripts.net.Net", "width": 3}
    folder = bundle(tmp_path / "b", network.state_dict(), definition=definition)
    (folder / "scripts").mkdir()
    (folder / "scripts" / "__init__.py").touch()
    shutil.copy(Path(__file__).with_name("small_networks.py"), folder / "scripts" / "net.py")
    with (folder / "scripts" / "net.py").open("a") as file:
        file.write(
            "\n\nNet = Gated\nfrom pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
        )
    error = needs_trust(
        folder, "is a MONAI bundle whose configuration says how to make the network"
    )
    assert not (folder / "scripts" / "ran").exists()
    model = load_model(folder, trust=True)
    assert (folder / "scripts" / "ran").exists()
    says_what_the_bundle_says(model.card)
    assert model.architecture == "Gated"
    same(model, network)
    assert needs_trust(folder, "MONAI bundle").sha256 != error.sha256  # a file came to be


def test_a_bundle_that_holds_torchscript(tmp_path):
    network = gated()
    folder = bundle(tmp_path / "b", script=network)
    needs_trust(folder, "is a TorchScript program")
    model = load_model(folder, trust=True)
    says_what_the_bundle_says(model.card)
    same(model, network)


def test_torchscript_that_monai_exported_says_what_its_bundle_said(tmp_path):
    path = scripted(tmp_path / "model.ts", gated())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/extra/metadata.json", json.dumps(METADATA))
    card = load_model(path, trust=True).card
    assert [c.name for c in card.classes] == ["background", "spleen"]
    assert card.name == "Spleen"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: shutil.rmtree(b / "configs"), "is a folder that holds no MONAI bundle"),
        (
            lambda b: (b / "models" / "model.pt").unlink(),
            "neither models/model.pt nor models/model.ts",
        ),
        (
            lambda b: (b / "configs" / "metadata.json").write_text("{"),
            "'configs/metadata.json' of the",
        ),
        (
            lambda b: (b / "configs" / "inference.json").write_text("[" * 9999),
            "'configs/inference.json'",
        ),
        (lambda b: (b / "link").symlink_to("/etc"), "leads to a place outside the folder"),
    ],
    ids=["no configs", "no weights", "metadata", "config", "link"],
)
def test_a_bundle_that_lacks_something_is_said(tmp_path, change, words):
    folder = bundle(tmp_path / "b", known().state_dict())
    change(folder)
    with pytest.raises(CheckpointError, match=words):
        load_model(folder)


def test_a_bundle_with_odd_metadata_still_opens(tmp_path):
    folder = bundle(tmp_path / "b", known().state_dict())
    odd = {
        "network_data_format": {"inputs": [1], "outputs": {"pred": {"channel_def": {"a": "b"}}}},
        "name": 3,
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(odd))
    (folder / "configs" / "inference.json").write_text(
        '{"preprocessing": {"transforms": ["$x", {"_target_": "Spacingd", "pixdim": "@p"}]}}'
    )
    model = load_model(folder)
    assert model.card.voxel_size is None
    assert any("Spacing could not be told" in s for s in model.card.assumptions)


# BioImage.IO packages.


def package(
    folder, network, kind="torchscript", preprocessing=(), order="zyx", size=None, **weights
) -> Path:
    import numpy as np

    folder.mkdir()
    extent = size or {"min": 8, "step": 4}
    np.save(folder / "test.npy", np.zeros((1, 1, 16, 16, 16), np.float32))
    space = [
        {"id": a, "type": "space", "size": extent, "unit": "micrometer", "scale": 0.5}
        for a in order
    ]
    outs = [
        {
            "id": a,
            "type": "space",
            "size": {"tensor_id": "raw", "axis_id": a},
            "unit": "micrometer",
            "scale": 0.5,
        }
        for a in order
    ]
    if kind == "torchscript":
        scripted(folder / "weights.pt", network)
        made = {"torchscript": {"source": "weights.pt", "pytorch_version": "2.0.0"}}
    else:
        torch.save(network.state_dict(), folder / "weights.pt")
        shutil.copy(Path(__file__).with_name("small_networks.py"), folder / "net.py")
        source = (folder / "net.py").read_bytes()
        architecture = {
            "source": "net.py",
            "sha256": hashlib.sha256(source).hexdigest(),
            "callable": "Gated",
            "kwargs": {"width": 3},
        }
        made = {
            "pytorch_state_dict": {
                "source": "weights.pt",
                "pytorch_version": "2.0.0",
                "architecture": architecture,
            }
        }
    description = {
        "type": "model",
        "format_version": "0.5.4",
        "name": "Nuclei",
        "description": "Finds nuclei.",
        "license": "MIT",
        "authors": [{"name": "A. Author"}],
        "cite": [{"text": "nobody", "doi": "10.1234/abc"}],
        "inputs": [
            {
                "id": "raw",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["membrane"]},
                    *space,
                ],
                "test_tensor": {"source": "test.npy"},
                "preprocessing": list(preprocessing),
            }
        ],
        "outputs": [
            {
                "id": "pred",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["a", "b"]},
                    *outs,
                ],
                "test_tensor": {"source": "test.npy"},
            }
        ],
        "weights": {**made, **weights},
    }
    (folder / "rdf.yaml").write_text(yaml.safe_dump(description))
    return folder


def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder))


@pytest.fixture
def _bioimageio():
    pytest.importorskip("bioimageio.core")


@pytest.mark.usefixtures("_bioimageio")
@pytest.mark.parametrize("given", ["folder", "zip", "rdf.yaml"])
def test_a_package_of_torchscript(tmp_path, given):
    network = gated()
    steps = [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "z", "y", "x"]}}]
    folder = package(tmp_path / "p", network, preprocessing=steps)
    path = {"folder": folder, "zip": zipped(folder), "rdf.yaml": folder / "rdf.yaml"}[given]
    needs_trust(path, "is a TorchScript program")
    model = load_model(path, trust=True)
    card = model.card
    assert (card.name, card.voxel_size, card.units) == ("Nuclei", (0.5, 0.5, 0.5), "µm")
    assert (card.licence, card.channel_names) == ("MIT", ("membrane",))
    assert card.normalization == Normalization("zscore")
    assert not any("z-scored" in s for s in card.assumptions)
    assert len(model.gates) == 1
    same(model, network)


@pytest.mark.usefixtures("_bioimageio")
def test_a_package_with_the_code_of_its_network(tmp_path):
    network = gated(width=3)
    folder = package(tmp_path / "p", network, "state")
    needs_trust(folder, "a BioImage.IO package with Python code")
    for path in (folder, zipped(folder)):
        model = load_model(path, trust=True)
        assert model.architecture == "Gated"
        same(model, network)


@pytest.mark.usefixtures("_bioimageio")
def test_a_package_of_a_known_network_needs_no_trust(tmp_path):
    network = known()
    folder = package(tmp_path / "p", network, "state")
    model = load_model(zipped(folder))
    assert (model.architecture, model.code, model.name) == ("AttU_Net", "", "Nuclei")
    same(model, network)


@pytest.mark.usefixtures("_bioimageio")
@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (
            {
                "id": "scale_range",
                "kwargs": {"axes": ["z", "y", "x"], "min_percentile": 2.0, "max_percentile": 98.0},
            },
            Normalization("percentile", 2, 98),
        ),
        ({"id": "scale_range", "kwargs": {"axes": ["z", "y", "x"]}}, Normalization("minmax")),
        (
            {"id": "scale_linear", "kwargs": {"gain": 0.5, "offset": -1.0}},
            Normalization("linear", 2, 4),
        ),
        (
            {"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": 10.0, "std": 4.0}},
            Normalization("linear", 10, 14),
        ),
    ],
    ids=["percentiles", "minmax", "linear", "fixed"],
)
def test_preprocessing_of_a_package_becomes_the_card(tmp_path, step, expected):
    folder = package(tmp_path / "p", known(), "state", preprocessing=[step])
    assert load_model(folder).card.normalization == expected


@pytest.mark.usefixtures("_bioimageio")
def test_a_package_of_one_size_is_run_at_it(tmp_path):
    folder = package(tmp_path / "p", randomised(OneSize()), size=None)
    text = (folder / "rdf.yaml").read_text()
    raw = yaml.safe_load(text)
    for axis, n in zip(raw["inputs"][0]["axes"][2:], SIZE, strict=True):
        axis["size"] = n
    (folder / "rdf.yaml").write_text(yaml.safe_dump(raw))
    model = load_model(folder, trust=True)
    assert model.graph.fixed
    assert model.stride == SIZE


@pytest.mark.usefixtures("_bioimageio")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda r: r.update(
                weights={"torchscript": {"source": "none.pt", "pytorch_version": "2.0.0"}}
            ),
            "which is missing|not one of a valid model|cannot be read",
        ),
        (lambda r: r.update(type="dataset"), "not one of a valid model|cannot be read"),
        (lambda r: r.pop("inputs"), "not one of a valid model.*inputs"),
        (lambda r: r["inputs"][0]["axes"].reverse(), "takes the axes x, y, z, channel, batch"),
        (
            lambda r: r["weights"]["torchscript"].update(source="../out.pt"),
            "outside of the package|valid model|cannot be read",
        ),
        (
            lambda r: r["weights"]["torchscript"].update(source="https://example.org/a.pt"),
            "outside of the package",
        ),
    ],
    ids=["missing", "dataset", "no inputs", "axes", "outside", "network"],
)
def test_a_package_that_does_not_fit_is_said(tmp_path, change, words):
    folder = package(tmp_path / "p", gated())
    (tmp_path / "out.pt").write_bytes((folder / "weights.pt").read_bytes())
    raw = yaml.safe_load((folder / "rdf.yaml").read_text())
    change(raw)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(CheckpointError, match=words) as caught:
        load_model(folder, trust=True)
    assert "\n" not in str(caught.value)
