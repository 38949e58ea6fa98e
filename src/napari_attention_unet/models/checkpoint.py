"""Open and save checkpoints. Nothing in a file is ever run."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_attention_unet.errors import CheckpointError

from .bundled import bundled_models, resolve
from .card import ClassInfo, ModelCard, default_classes
from .sniff import looks_like, safetensors_metadata

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .families import Built

#: Key of the model card in the metadata of a safetensors file.
CARD_KEY = "attention_unet_card"
#: Names under which training scripts put the state_dict.
WRAPPERS = ("state_dict", "model_state_dict", "network_weights", "model", "net")
_WORKS = "A checkpoint is a safetensors file, or a state_dict that torch.save wrote."


def open_checkpoint(path_or_name: str | Path, **options: Any) -> tuple[nn.Module, ModelCard, str]:
    """Open a checkpoint without running anything in it.

    Parameters
    ----------
    path_or_name : str or Path
        A file, or the name of a bundled model such as ``"brain-t1"``.
    **options
        What the names and shapes of its tensors do not say, such as ``strides`` or
        ``align_corners``; see the families of `napari_attention_unet.models.families`. They
        win over the card.

    Returns
    -------
    module : nn.Module
        The network, in float32 on the CPU and in evaluation mode.
    card : ModelCard
        The file's own; where it has none, one made of what the tensors say, with all that was
        assumed listed in ``assumptions``.
    sha256 : str
        Of the file's content, in hexadecimal.

    Raises
    ------
    CheckpointError
        If there is no such file, it is not a checkpoint of a known network, or an option is
        not one of that network.
    """
    from .families import FAMILIES
    from .recognise import nearest, recognise

    path = resolve(path_or_name)
    contents = read_contents(path)
    state = contents.state
    found = recognise(state)
    if found is None:
        names = ", ".join(family.name for family in FAMILIES)
        some = ", ".join(list(state)[:3])
        raise CheckpointError(
            f"'{path.name}' holds {len(state)} tensors of a network that is not known; the first "
            f"are {some}. Known networks: {names}. {nearest(state)}"
        )
    card = read_card(path)
    told = card.arguments if card is not None else {}
    stated = {o.name: told[o.name] for o in found.family.options if o.name in told}
    built = found.family.build(found.state, contents.modules, **{**stated, **options})
    if card is None:
        card = _guessed_card(path.stem, built)
        if found.left:
            left = f"{len(found.left)} tensors beside the network were left out: {found.left[0]}"
            card = replace(card, assumptions=(*card.assumptions, f"{left}, ..."))
    return built.module, card, sha256(path)


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds.

    Attributes
    ----------
    state : dict
        Its tensors by name.
    modules : dict
        Plain attributes of each module by its path, where a whole model was pickled.
    """

    state: dict[str, Tensor]
    modules: dict[str, dict[str, Any]] = field(default_factory=dict)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name; see `read_contents`."""
    return read_contents(path).state


def read_contents(path: Path) -> Contents:
    """The tensors of a checkpoint by name, out of whatever wraps them.

    Parameters
    ----------
    path : Path
        A safetensors file or one that `torch.save` wrote.

    Raises
    ------
    CheckpointError
        If the file does not hold a state_dict; the message says what it looks like.
    """
    _check_is_file(path)
    kind = looks_like(path)
    if kind == "safetensors":
        return Contents(_read_safetensors(path))
    if kind in ("torch", "pickle"):
        contents = _unwrapped(_read_torch(path), path.name)
        _check_sizes(contents.state, path)
        return contents
    if kind == "torchscript":
        kind = "a TorchScript program, which holds code"
    raise CheckpointError(f"'{path.name}' looks like {kind}. {_WORKS}")


def read_card(path: Path) -> ModelCard | None:
    """The model card that a checkpoint carries, without loading torch; None if it has none.

    Raises
    ------
    CheckpointError
        If there is a card that cannot be read.
    """
    _check_is_file(path)
    try:
        text = safetensors_metadata(path).get(CARD_KEY)
    except ValueError:
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

    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    tensors = {
        key: (t.to(dtype) if dtype is not None and t.ndim > 1 else t).contiguous().clone()
        for key, t in state.items()
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={CARD_KEY: card.to_json()})
    return path


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        raise CheckpointError(f"'{path.name}' is a folder. {_WORKS}")
    if not path.exists():
        names = ", ".join(bundled_models()) or "none"
        raise CheckpointError(f"There is no file '{path}'. Bundled models: {names}.")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            f"'{path.name}' begins like a safetensors file but is damaged or cut short "
            f"({_first_line(error)}). Copy or download it again."
        ) from error


def _read_torch(path: Path) -> Any:
    import torch

    from .inert import check_archive, read_inert

    check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # holds more than tensors: take those, and run nothing
        return read_inert(path)
    except Exception as error:  # damaged files fail in many ways inside torch
        raise CheckpointError(
            f"'{path.name}' begins like a PyTorch checkpoint but is damaged or cut short "
            f"({_first_line(error)}). Copy or download it again."
        ) from error


def _check_sizes(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that would grow far beyond their file when they are copied."""
    from .inert import MAX_SHARED

    total = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if total > MAX_SHARED * path.stat().st_size:
        raise CheckpointError(
            f"'{path.name}' says {total} bytes of tensors, many times its own size, as no "
            "checkpoint does. Copy or download it again."
        )


def _unwrapped(content: Any, name: str) -> Contents:
    """The state_dict inside what a training script saved."""
    import torch

    from .inert import Inert, class_name, hyper_parameters, is_module, state_dict_of

    for _ in range(4):
        if is_module(content):
            return Contents(state_dict_of(content), hyper_parameters(content))
        if not isinstance(content, Mapping):
            break
        tensors = {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}
        inner = next((content[w] for w in WRAPPERS if _is_wrapped(content.get(w))), None)
        if inner is None:
            if tensors:
                return Contents(tensors)
            break
        content = inner
    what = f"a {type(content).__name__}"
    if isinstance(content, Inert):
        what = f"an object of {class_name(content)}"
    if isinstance(content, Mapping):
        what = f"the entries {', '.join(map(str, list(content)[:5])) or '(none)'}"
    raise CheckpointError(f"'{name}' holds no state_dict but {what}. {_WORKS}")


def _is_wrapped(content: Any) -> bool:
    from .inert import is_module

    return isinstance(content, Mapping) or is_module(content)


def _guessed_card(name: str, built: Built) -> ModelCard:
    classes: tuple[ClassInfo, ...] = default_classes(max(2, built.out_channels))
    return ModelCard(
        name=name,
        architecture=built.family,
        arguments={**built.arguments, **built.options},
        in_channels=built.in_channels,
        classes=classes,
        activation=built.activation,
        assumptions=(
            "Intensities are z-scored over the whole volume; the file does not say.",
            f"Outputs are logits, {built.activation} follows; the file does not say.",
            "Any voxel size and orientation is taken as it comes; the file does not say.",
            "Classes have no names in the file.",
            *built.assumptions,
        ),
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:160]
