"""Open and save checkpoints. Nothing in a file is run that nobody said yes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_attention_unet.errors import CheckpointError

from .bundled import resolve
from .card import ModelCard, default_classes
from .card_file import find_card
from .contents import WORKS, check_exists, read_contents, read_state, sha256
from .guess import Known, guessed_card
from .opened import Opened, Request
from .shards import index_in, is_index
from .sniff import looks_like, safetensors_metadata

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["CARD_KEY", "open_checkpoint", "read_card", "read_state", "save_checkpoint", "sha256"]

#: Key of the model card in the metadata of a safetensors file.
CARD_KEY = "attention_unet_card"


def open_checkpoint(
    path_or_name: str | Path, request: Request | None = None, **options: Any
) -> Opened:
    """Open a checkpoint. Nothing in it runs unless the request says that it may.

    Parameters
    ----------
    path_or_name : str or Path
        A file or folder, or the name of a bundled model such as ``"brain-t1"``: safetensors, what
        `torch.save` wrote, a TorchScript or ``torch.export`` program, a MONAI bundle's folder, a
        BioImage.IO package.
    request : Request, optional
        What the caller says of it.
    **options
        What the names and shapes of its tensors do not say, such as ``strides`` or
        ``align_corners``; see the families of `napari_attention_unet.models.families`. They
        win over the card, and over those of the request.

    Raises
    ------
    TrustRequired
        If it holds or needs code, and nobody said that this may run.
    CheckpointError
        If there is no such file, it is not a checkpoint of a known network, or an option is
        not one of that network.
    """
    path = _located(resolve(path_or_name))
    request = request or Request()
    request = replace(request, options={**request.options, **options})
    digest = sha256(path)
    card = find_card(path, digest) or read_card(path)
    kind = _kind(path)
    if kind == "bundle":
        from .bundle import open_bundle

        return open_bundle(path, digest, card, request)
    if kind == "package":
        from .bioimage import description_in, open_package

        described = description_in(path) if path.is_dir() else path
        return open_package(described or path, digest, card, request)
    if kind in ("torchscript", "exported"):
        from .programs import EXPORTED, SCRIPT, open_program

        what = SCRIPT if kind == "torchscript" else EXPORTED
        return open_program(path, what, digest, card, request)
    return _open_weights(path, digest, card, request)


def _open_weights(path: Path, digest: str, card: ModelCard | None, request: Request) -> Opened:
    """A file of tensors: of a known network, or of a class that is named."""
    from .foreign import build_foreign, load_strictly
    from .tensors import open_tensors, unknown

    told = card.arguments.get("weights") if card is not None else None
    contents = read_contents(path, request.weights or told)
    named = request.architecture or (card.architecture if card and ":" in card.architecture else "")
    if not named:
        package = Known(path.name.partition(".")[0] if is_index(path) else path.stem, "")
        opened = open_tensors(contents, package, digest, card, request)
        if opened is None:
            raise unknown(contents, path.name)
        return opened
    arguments = request.arguments or (card.arguments if card and not request.architecture else {})
    network = build_foreign(path, digest, named, arguments, request.trust)
    load_strictly(network, contents.state, named)
    known = Known(path.stem, named, arguments, "", contents.facts, contents.notes)
    guessed, assumed = guessed_card(known, request.stated)
    if card is not None:
        guessed, assumed = replace(card, architecture=named, arguments=dict(arguments)), frozenset()
    what = f"the Python class {named}"
    return Opened(network, guessed, digest, (), what, request.extent, assumed)


def _located(path: Path) -> Path:
    """What is meant by a path: a folder may hold the index of a sharded checkpoint."""
    check_exists(path)
    if path.is_dir():
        return index_in(path) or path
    # A description alone stands for its folder, whose files all count.
    return path.parent if looks_like(path) == "description" else path


def _kind(path: Path) -> str:
    """By which door a path is opened."""
    from .bioimage import description_in
    from .bundle import is_bundle

    if not path.is_dir():
        kind = looks_like(path)
        return "package" if kind == "a BioImage.IO package" else kind
    if description_in(path):
        return "package"
    if is_bundle(path):
        return "bundle"
    raise CheckpointError(
        f"'{path.name}' is a folder that holds no MONAI bundle (configs and models), no "
        f"BioImage.IO package (rdf.yaml) and no index of safetensors. {WORKS}"
    )


def read_card(path: Path) -> ModelCard | None:
    """The model card that a checkpoint carries, without loading torch; None if it has none.

    Raises
    ------
    CheckpointError
        If there is a card that cannot be read.
    """
    check_exists(path)
    try:
        text = safetensors_metadata(path).get(CARD_KEY)
    except (ValueError, OSError):
        return None
    if text is None:
        return None
    card = ModelCard.from_json(text)
    if not card.classes:
        out = int(card.arguments.get("out_channels", 2))
        card = replace(card, classes=default_classes(max(2, out)))
    return card


def save_checkpoint(
    path: str | Path,
    weights: nn.Module | Mapping[str, Tensor],
    card: ModelCard,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write weights and their card as a safetensors file.

    Parameters
    ----------
    path : str or Path
        File to write; ``.safetensors`` by custom.
    weights : nn.Module or state_dict
        What to store.
    card : ModelCard
        Goes into the file's metadata.
    dtype : torch.dtype, optional
        Storage of kernels, for example ``torch.float16``. Vectors (biases, statistics of batch
        normalisation) take little room and keep their own type.

    Returns
    -------
    Path
        The file.
    """
    from safetensors.torch import save_file
    from torch import nn

    from .tensors import OF_THE_FILE

    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    tensors = {
        key: (t.to(dtype) if dtype is not None and t.ndim > 1 else t).contiguous().clone()
        for key, t in state.items()
    }
    arguments = {k: v for k, v in card.arguments.items() if k not in OF_THE_FILE}
    card = replace(card, arguments=arguments)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={CARD_KEY: card.to_json()})
    return path
