"""What gets installed: manifest, entry points, and what the wheel carries."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from npe2 import PluginManifest

ROOT = Path(__file__).parents[1]
NAME = "napari-attention-unet"


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_distribution(NAME)


def test_manifest_is_valid_and_its_commands_import(manifest: PluginManifest):
    assert manifest.name == manifest.display_name == NAME
    manifest.validate_imports()


def test_manifest_offers_widget_readers_and_sample(manifest: PluginManifest):
    widgets = manifest.contributions.widgets or []
    assert [widget.display_name for widget in widgets] == ["Attention U-Net"]
    patterns = {
        pattern
        for reader in manifest.contributions.readers or []
        for pattern in reader.filename_patterns
    }
    assert {"*.tif", "*.tiff", "*.nii", "*.nii.gz"} <= patterns
    assert manifest.contributions.sample_data


def test_console_script():
    (script,) = metadata.entry_points(group="console_scripts", name=NAME)
    assert callable(script.load())


def test_version_is_the_distribution_version():
    import napari_attention_unet

    assert napari_attention_unet.__version__ == metadata.version(NAME)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy in which the manifest's link is a plain text file.

    That is how a checkout looks where symbolic links are not supported.
    """
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("needs a checkout")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "napari.yaml"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(
        ROOT / "src", source / "src", symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    link = source / "src" / "napari_attention_unet" / "napari.yaml"
    link.unlink()
    link.write_text("../../napari.yaml")
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_carries_manifest_weights_and_sample(wheel: zipfile.ZipFile):
    files = {name.removeprefix("napari_attention_unet/") for name in wheel.namelist()}
    assert yaml.safe_load(wheel.read("napari_attention_unet/napari.yaml"))["name"] == NAME
    assert "py.typed" in files
    tracked = {
        path.relative_to(ROOT / "src" / "napari_attention_unet").as_posix()
        for path in (ROOT / "src").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert tracked <= files
    assert any(name.endswith(".safetensors") for name in files), "no weights"
    assert any(name.endswith(".nii.gz") for name in files), "no sample volume"


def test_wheel_carries_nothing_else(wheel: zipfile.ZipFile):
    top = {name.split("/")[0] for name in wheel.namelist()}
    (info,) = (name for name in top if name.endswith(".dist-info"))
    assert top == {"napari_attention_unet", info}
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    assert sum(entry.compress_size for entry in wheel.infolist()) < 12 * 2**20
