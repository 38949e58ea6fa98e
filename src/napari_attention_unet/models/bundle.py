"""MONAI bundles: a folder with weights, configurations and metadata."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_attention_unet.errors import CheckpointError

from .card import ModelCard
from .contents import first_line, read_contents
from .foreign import load_strictly, made
from .guess import Known, guessed_card
from .monai_card import metadata_facts, preprocessing_facts
from .opened import Opened, Request
from .programs import SCRIPT, open_program
from .tensors import open_tensors
from .texts import read_text
from .trust import require

if TYPE_CHECKING:
    from torch import nn

    from .wrappers import Contents

_NETWORKS = ("network_def", "net", "network")
_WHAT = "a MONAI bundle whose configuration says how to make the network"
_WHY = (
    "To make it, MONAI runs what the bundle's configuration and scripts say, as any program does."
)


def is_bundle(folder: Path) -> bool:
    """Whether a folder looks like a MONAI bundle."""
    return (folder / "configs").is_dir() and (folder / "models").is_dir()


def open_bundle(folder: Path, digest: str, card: ModelCard | None, request: Request) -> Opened:
    """Open a bundle: as a known network without running anything, otherwise with the user's yes.

    Parameters
    ----------
    folder : Path
        Holds ``configs`` and ``models``.
    digest : str
        Of all files in it.
    card : ModelCard or None
        What was saved of it before.
    request : Request
        What the caller says.

    Raises
    ------
    TrustRequired
        If its network is not a known one, and nobody said that its code may run.
    CheckpointError
        If it lacks something, or does not fit together.
    """
    configs = folder / "configs"
    metadata, config = _metadata(configs), _config(configs)
    facts, extent = metadata_facts(metadata)
    more, notes = preprocessing_facts(config)
    package = Known(folder.name, "MONAI bundle", facts={**facts, **more}, notes=notes)
    request = replace(request, extent=request.extent or extent)
    weights, script = folder / "models" / "model.pt", folder / "models" / "model.ts"
    if not weights.is_file():
        if not script.is_file():
            raise CheckpointError(
                f"The MONAI bundle '{folder.name}' has neither models/model.pt nor "
                "models/model.ts. Download its weights, for example with "
                "'python -m monai.bundle download'."
            )
        return open_program(script, SCRIPT, digest, card, request, package)
    contents = read_contents(weights, request.weights)
    definition: Mapping[str, Any] = next(
        (config[n] for n in _NETWORKS if isinstance(config.get(n), Mapping)), {}
    )
    if opened := open_tensors(_hinted(contents, definition), package, digest, card, request):
        return opened
    require(folder, digest, _WHAT, _WHY, request.trust)
    network = _parsed(folder, next((n for n in _NETWORKS if n in config), ""))
    name = f"{type(network).__module__}.{type(network).__qualname__}"
    load_strictly(network, contents.state, name)
    known = replace(package, architecture=type(network).__name__, notes=contents.notes + notes)
    guessed, assumed = guessed_card(known, request.stated)
    if card is not None:
        guessed, assumed = card, frozenset()
    return Opened(network, guessed, digest, (), _WHAT, request.extent, assumed)


def _hinted(contents: Contents, definition: Mapping[str, Any]) -> Contents:
    """With the literal arguments of the network's definition as hyper-parameters."""
    plain = {
        str(k): tuple(v) if isinstance(v, list) else v
        for k, v in definition.items()
        if not str(k).startswith("_") and not (isinstance(v, str) and v[:1] in ("$", "@", "%"))
    }
    named = str(definition.get("_target_", ""))
    return replace(contents, modules={**contents.modules, "": {**plain, "class": named}})


def _metadata(configs: Path) -> Any:
    path = configs / "metadata.json"
    return _read(path) if path.is_file() else {}


def _config(configs: Path) -> dict[str, Any]:
    for name in ("inference.json", "inference.yaml", "inference.yml", "train.json", "train.yaml"):
        if (configs / name).is_file():
            found = _read(configs / name)
            return found if isinstance(found, dict) else {}
    return {}


def _read(path: Path) -> Any:
    import yaml

    try:
        text = read_text(path)
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise CheckpointError(
            f"'configs/{path.name}' of the MONAI bundle is damaged ({first_line(error)}). Copy or "
            "download the bundle again."
        ) from error


def _parsed(folder: Path, name: str) -> nn.Module:
    """The network as MONAI makes it of the configuration."""
    try:
        from monai.bundle.config_parser import (  # type: ignore[import-not-found, unused-ignore]
            ConfigParser,
        )
    except ImportError as error:
        raise CheckpointError(
            f"'{folder.name}' is a MONAI bundle, and MONAI is not installed. pip install "
            '"napari-attention-unet[monai]" would mend it.'
        ) from error
    if not name:
        raise CheckpointError(
            f"The configuration of the MONAI bundle '{folder.name}' defines none of "
            f"{', '.join(_NETWORKS)}. A bundle with a network_def would work."
        )
    configs = folder / "configs"
    stem = next(p for p in ("inference", "train") if list(configs.glob(f"{p}.*")))
    config = next(iter(sorted(configs.glob(f"{stem}.*"))))

    def parse() -> Any:
        parser = ConfigParser()
        parser.read_config(str(config))
        if (configs / "metadata.json").is_file():
            parser.read_meta(str(configs / "metadata.json"))
        parser["bundle_root"] = str(folder)
        return parser.get_parsed_content(name, instantiate=True)

    sys.path.insert(0, str(folder))  # a bundle's scripts are imported from its root
    try:
        return made(parse, f"'{name}' of the MONAI bundle '{folder.name}'", {})
    finally:
        sys.path.remove(str(folder))
