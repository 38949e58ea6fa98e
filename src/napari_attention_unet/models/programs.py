"""TorchScript and torch.export programs: networks that come with their code."""

from __future__ import annotations

import json
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_attention_unet.errors import CheckpointError
from napari_attention_unet.volume import Shape3

from .archives import check_entries
from .card import ModelCard
from .contents import first_line
from .guess import Known, guessed_card
from .monai_card import metadata_facts
from .opened import Opened, Request
from .trust import require

if TYPE_CHECKING:
    from torch import nn

SCRIPT = "a TorchScript program"
EXPORTED = "a torch.export program"
_WHY = {
    SCRIPT: (
        "It is code as well as weights: to open it, torch interprets what the file says, which "
        "could be made to read or write files of yours."
    ),
    EXPORTED: (
        "It is code as well as weights: to open it, torch evaluates expressions of the file, and "
        "falls back to Python's pickle, which runs whatever a file says, where its data is not "
        "plain."
    ),
}
_LARGEST_TEXT = 16 * 2**20


def open_program(
    path: Path,
    what: str,
    digest: str,
    card: ModelCard | None,
    request: Request,
    package: Known | None = None,
) -> Opened:
    """Open a program, if it may run.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        `SCRIPT` or `EXPORTED`.
    digest : str
        Of its content.
    card : ModelCard or None
        What was saved of it before.
    request : Request
        What the caller says.
    package : Known, optional
        What the package says in which the program lies.

    Raises
    ------
    TrustRequired
        If nobody said that its code may run.
    CheckpointError
        If it is damaged, or does not take one volume.
    """
    check_entries(path)
    require(path, digest, what, _WHY[what] + _pickles(path, what), request.trust)
    extent = request.extent
    facts: dict[str, Any] = {}
    if what == SCRIPT:
        module, name = _script(path)
        facts, told = _metadata(path)
        extent = extent or told
    else:
        module, channels, shown = _exported(path)
        name, facts["in_channels"] = EXPORTED.removeprefix("a "), channels
        extent = extent or shown
    known = Known(path.stem, name, facts=facts)
    if package is not None:
        known = replace(package, architecture=name, facts={**facts, **package.facts})
    made, assumed = guessed_card(known, request.stated)
    if card is not None:
        made, assumed = card, frozenset()
    return Opened(module, made, digest, (), what, extent, assumed)


def _pickles(path: Path, what: str) -> str:
    """A warning of data that torch would read with pickle."""
    if what != EXPORTED:
        return ""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        plain = ("weights_config.json", "constants_config.json")
        configs = [n for n in names if n.endswith(plain)]
        asks = False
        for name in configs:
            with archive.open(name) as entry:
                asks |= b'"use_pickle": true' in entry.read(_LARGEST_TEXT)
    old = any(n.endswith(".pt") and "sample_inputs" not in n for n in names)
    objects = any("custom_obj" in n or "opaque_obj" in n for n in names)
    return " This file does hold such data." if asks or old or objects else ""


def _script(path: Path) -> tuple[nn.Module, str]:
    import torch

    try:
        module: Any = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        with suppress(AttributeError):  # frozen programs have one mode
            module.eval()
        return module.float(), str(module.original_name)
    except Exception as error:  # damaged programs fail in many ways inside torch
        raise CheckpointError(
            f"'{path.name}' looks like {SCRIPT} but cannot be read ({first_line(error)}). Copy or "
            "download it again, or save it with the torch of today."
        ) from error


def _exported(path: Path) -> tuple[nn.Module, int, Shape3]:
    """The module, and the channels and extent of the input that it was exported with."""
    import torch
    from torch.export.graph_signature import InputKind

    try:
        program = torch.export.load(path)
        specs = program.graph_signature.input_specs
        names = [s.arg.name for s in specs if s.kind is InputKind.USER_INPUT]
        inputs = [n.meta["val"] for n in program.graph.nodes if n.name in names]
        module = program.module()
    except Exception as error:  # a damaged or an older program fails in many ways inside torch
        raise CheckpointError(
            f"'{path.name}' looks like {EXPORTED} but cannot be read ({first_line(error)}). Export "
            "it again with the torch of today."
        ) from error
    shapes = [tuple(_hint(n) for n in value.shape) for value in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 5 or shapes[0][0] != 1:
        raise CheckpointError(
            f"'{path.name}' was exported for inputs of the shapes {shapes}. One that takes a "
            "single volume, (1, channel, z, y, x), would work."
        )
    _, channels, z, y, x = shapes[0]
    return module, channels, (z, y, x)


def _hint(size: Any) -> int:
    return size if isinstance(size, int) else int(size.node.hint)


def _metadata(path: Path) -> tuple[dict[str, Any], Shape3 | None]:
    """What MONAI writes into the archive of a program that was exported from a bundle."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("extra/metadata.json"):
                with archive.open(name) as entry, suppress(ValueError, RecursionError):
                    return metadata_facts(json.loads(entry.read(_LARGEST_TEXT)))
    return {}, None
