"""BioImage.IO packages: a description (``rdf.yaml``) with weights beside it, perhaps zipped.

The description is read by ``bioimageio.spec``, which brings older ones to today's form; a network
that is not a known one is made by ``bioimageio.core``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_attention_unet.errors import CheckpointError
from napari_attention_unet.units import NO_UNIT, unit_symbol
from napari_attention_unet.volume import Shape3

from .archives import unpacked
from .card import ModelCard, Normalization
from .contents import first_line, read_contents
from .foreign import load_strictly, made
from .guess import Known, guessed_card
from .opened import Opened, Request
from .programs import SCRIPT, open_program
from .tensors import open_tensors
from .texts import read_text
from .trust import require

NAMES = ("rdf.yaml", "bioimageio.yaml")
_WHAT = "a BioImage.IO package with Python code that makes its network"
_WHY = "To make it, that code is imported and runs as any program does."
_AXES = ["batch", "channel", "z", "y", "x"]


def description_in(folder: Path) -> Path | None:
    """The description in a folder; None if there is none."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def open_package(path: Path, digest: str, card: ModelCard | None, request: Request) -> Opened:
    """Open a package: a known network without running anything, others with the user's yes.

    Parameters
    ----------
    path : Path
        A description, or the zip archive of a package.
    digest : str
        Of the content, of all files where it is a folder.
    card : ModelCard or None
        What was saved of it before.
    request : Request
        What the caller says.

    Raises
    ------
    TrustRequired
        If it holds code, and nobody said that it may run.
    CheckpointError
        If it lacks something, is not on this disk whole, or its network takes no volume.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        return _open(path, digest, card, request)
    with unpacked(path) as folder:
        described = description_in(folder)
        if described is None:
            raise CheckpointError(f"The archive '{path.name}' holds no rdf.yaml at its root.")
        return _open(described, digest, card, request, path)


def _open(
    described: Path,
    digest: str,
    card: ModelCard | None,
    request: Request,
    archive: Path | None = None,
) -> Opened:
    shown = archive or described
    description = _description(described, shown.name)
    raw = description.model_dump(mode="json")
    facts, extent, notes = _facts(raw, shown.name)
    package = Known(str(raw.get("name") or shown.stem), "BioImage.IO package", {}, "", facts, notes)
    request = replace(request, extent=request.extent or extent)
    weights = raw.get("weights") or {}
    state, script = weights.get("pytorch_state_dict"), weights.get("torchscript")
    if state:
        contents = read_contents(_file(described.parent, state, shown.name), request.weights)
        if opened := open_tensors(contents, package, digest, card, request):
            return opened
    if script and not state:
        program = _file(described.parent, script, shown.name)
        return open_program(program, SCRIPT, digest, card, request, package)
    if not state:
        held = ", ".join(k for k, v in weights.items() if v) or "none"
        raise CheckpointError(
            f"'{shown.name}' has weights for {held}. A package with pytorch_state_dict or "
            "torchscript weights would work."
        )
    require(shown, digest, _WHAT, _WHY, request.trust)
    network = made(lambda: _network(description), f"The architecture of '{shown.name}'", {})
    load_strictly(network, contents.state, type(network).__name__)
    known = replace(package, architecture=type(network).__name__, notes=contents.notes + notes)
    guessed, assumed = guessed_card(known, request.stated)
    if card is not None:
        guessed, assumed = card, frozenset()
    return Opened(network, guessed, digest, (), _WHAT, request.extent, assumed)


def _description(path: Path, name: str) -> Any:
    try:
        from bioimageio.spec import load_description
        from bioimageio.spec.model import v0_5
    except ImportError as error:
        raise CheckpointError(
            f"'{name}' is a BioImage.IO package, which is read through bioimageio.core, and that "
            'is not installed. pip install "napari-attention-unet[bioimageio]" would mend it.'
        ) from error
    try:
        read_text(path)  # refuses what would take its reader forever
        found = load_description(path, format_version="latest", perform_io_checks=False)
    except Exception as error:  # of whatever a damaged description makes of its readers
        raise CheckpointError(
            f"'{name}' looks like a BioImage.IO package, but its description cannot be read "
            f"({first_line(error)}). Copy or download the package again."
        ) from error
    if not isinstance(found, v0_5.ModelDescr):
        why = first_line(Exception(found.validation_summary.format()))
        with suppress(AttributeError, IndexError):
            why = "; ".join(
                f"{'.'.join(map(str, e.loc))}: {e.msg}"
                for e in found.validation_summary.details[-1].errors[:2]
            )
        raise CheckpointError(
            f"The description of '{name}' is not one of a valid model ({why}). A package that "
            "bioimageio.spec accepts would work."
        )
    return found


def _file(folder: Path, entry: Mapping[str, Any], name: str) -> Path:
    """The file of weights, which has to lie in the package."""
    source = str(entry.get("source"))
    path = folder / source
    inside = path.resolve().is_relative_to(folder.resolve())
    if "://" in source or not inside:
        raise CheckpointError(
            f"The weights of '{name}' lie at {source[:120]!r}, outside of the package. Download "
            "the whole package, for example as a zip from bioimage.io."
        )
    if not path.is_file():
        raise CheckpointError(
            f"'{name}' speaks of weights in '{source}', which is missing. Download the whole "
            "package again."
        )
    return path


def _network(description: Any) -> Any:
    from bioimageio.core.backends.pytorch_backend import load_torch_model

    return load_torch_model(description.weights.pytorch_state_dict, load_state=False)


def _facts(
    raw: Mapping[str, Any], name: str
) -> tuple[dict[str, Any], Shape3 | None, tuple[str, ...]]:
    """Fields of the model card, the extent that the network takes, and what has no field."""
    inputs = raw.get("inputs") or []
    if len(inputs) != 1:
        raise CheckpointError(
            f"'{name}' takes {len(inputs)} inputs. A network that takes one volume would work."
        )
    axes = list(inputs[0].get("axes") or [])
    order = [str(axis.get("id") or axis.get("type")) for axis in axes]
    if order != _AXES:
        raise CheckpointError(
            f"'{name}' takes the axes {', '.join(order)}; a network that takes batch, channel, z, "
            "y, x would work."
        )
    facts: dict[str, Any] = {
        ours: str(raw[theirs])
        for theirs, ours in (("description", "description"), ("license", "licence"))
        if raw.get(theirs)
    }
    names = tuple(str(n) for n in axes[1].get("channel_names") or ())
    facts["channel_names"], facts["in_channels"] = names, max(1, len(names))
    sizes, units = [a.get("scale") for a in axes[2:]], {a.get("unit") for a in axes[2:]}
    unit = unit_symbol(units.pop()) if len(units) == 1 else NO_UNIT
    if unit != NO_UNIT and all(isinstance(v, int | float) for v in sizes):
        facts["voxel_size"], facts["units"] = tuple(float(v) for v in sizes), unit
    normalization, notes = _normalization(inputs[0].get("preprocessing") or [])
    if normalization:
        facts["normalization"] = normalization
    extents = [_size(axis.get("size")) for axis in axes[2:]]
    z, y, x = (n or 0 for n in extents)
    return facts, (z, y, x) if z and y and x else None, notes


def _size(size: Any) -> int | None:
    if isinstance(size, Mapping):
        size = size.get("min")
    return size if isinstance(size, int) else None


def _normalization(steps: list[Any]) -> tuple[Normalization | None, tuple[str, ...]]:
    """What the steps before the network do to intensities, as far as the card can say it."""
    found: Normalization | None = None
    notes: list[str] = []
    for step in steps:
        kind, given = str(step.get("id") or step.get("name")), step.get("kwargs") or {}
        if kind == "ensure_dtype":
            continue
        made = _READ[kind](given) if kind in _READ else None
        if made is None or found is not None:
            notes.append(
                f"The package's preprocessing '{kind}' could not be told in a model card; it is "
                "left out."
            )
        else:
            found = made
            if kind == "scale_range":
                notes.append("Intensities beyond the package's percentiles are clipped to 0 and 1.")
    return found, tuple(notes)


def _fixed(given: Mapping[str, Any]) -> Normalization | None:
    mean, std = given.get("mean"), given.get("std")
    if not isinstance(mean, int | float) or not isinstance(std, int | float):
        return None  # one a channel
    return Normalization("linear", float(mean), float(mean + std))


def _linear(given: Mapping[str, Any]) -> Normalization | None:
    gain, offset = given.get("gain", 1.0), given.get("offset", 0.0)
    if not isinstance(gain, int | float) or not isinstance(offset, int | float) or not gain:
        return None
    return Normalization("linear", -offset / gain, (1 - offset) / gain)


def _range(given: Mapping[str, Any]) -> Normalization:
    low, high = given.get("min_percentile", 0.0), given.get("max_percentile", 100.0)
    if (low, high) == (0, 100):
        return Normalization("minmax")
    return Normalization("percentile", float(low), float(high))


_READ = {
    "zero_mean_unit_variance": lambda given: Normalization("zscore"),
    "fixed_zero_mean_unit_variance": _fixed,
    "scale_linear": _linear,
    "scale_range": _range,
}
