"""Layers point downwards, and the light parts stay light."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

import napari_attention_unet as nau

PACKAGE = Path(str(resources.files("napari_attention_unet")))
ROOT = Path(__file__).parents[1]
GUI = {"PyQt5", "PyQt6", "PySide6", "magicgui", "napari", "qtpy", "superqt", "vispy"}


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _imported(path: Path) -> set[str]:
    """Top-level names of the packages that a file imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def _loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after the statement."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return {name.split(".")[0] for name in json.loads(run.stdout.splitlines()[-1])}


def test_layers_point_downwards(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """The contracts in pyproject.toml hold."""
    from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("needs a checkout")
    monkeypatch.chdir(ROOT)
    status = lint_imports(cache_dir=None)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


@pytest.mark.parametrize(
    "path",
    [p for p in _modules() if "_qt" not in p.parts],
    ids=lambda p: p.relative_to(PACKAGE).as_posix(),
)
def test_only_qt_imports_the_gui(path: Path):
    assert not _imported(path) & GUI


def test_someone_imports_the_gui():
    """Otherwise the test above looks at the wrong files."""
    assert any(_imported(path) & GUI for path in _modules())


def test_importing_the_package_is_light():
    loaded = _loaded_by("import napari_attention_unet")
    assert not loaded & (GUI | {"torch", "numpy", "nibabel", "tifffile", "zarr"})


def test_the_core_needs_no_gui():

    names = ("predict", "io", "inspect.measures", "cli")
    loaded = _loaded_by("; ".join(f"import napari_attention_unet.{name}" for name in names))
    assert "torch" in loaded
    assert not loaded & GUI


def test_public_names_resolve():
    for name in nau.__all__:
        assert getattr(nau, name) is not None, name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = nau.no_such_name


def test_predict_stays_the_function():
    """Although there is a submodule of the same name."""
    importlib.import_module("napari_attention_unet.predict")
    assert callable(nau.predict)
    assert "predict" in dir(nau)
