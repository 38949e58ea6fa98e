"""Models as the panel knows them: listed by name, loaded once, described without their tensors."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_attention_unet.errors import AttentionUNetError, InputError, TrustRequired
from napari_attention_unet.models import ClassInfo, ModelCard, bundled_models
from napari_attention_unet.models.bundled import resolve
from napari_attention_unet.models.card_file import (
    card_path,
    forget_card,
    remember_card,
    save_card,
)
from napari_attention_unet.models.card_options import normalization_of
from napari_attention_unet.models.guess import without_stated
from napari_attention_unet.models.trust import remember
from napari_attention_unet.volume import Shape3, Volume

if TYPE_CHECKING:
    from napari_attention_unet.describe import Description

#: Loaded models that are kept; one to run, one to go back to.
KEPT = 2
#: Files of a folder that are looked at to see whether it changed.
_MOST_FILES = 1000


@dataclass(frozen=True)
class ModelFacts:
    """What the panel shows of a model.

    Attributes
    ----------
    name : str
        Bundled name or path, as chosen.
    description : Description or None
        All there is to know of it; None if it cannot be used.
    error : str
        Why it cannot be used; empty if it can.
    question : TrustRequired or None
        What the person has to say yes to before it can be used.
    notice : str
        What became of the latest change of its card, in a sentence; empty without one.
    """

    name: str
    description: Description | None = None
    error: str = ""
    question: TrustRequired | None = None
    notice: str = ""

    @property
    def card(self) -> ModelCard | None:
        """What it expects of a volume; None if it cannot be used."""
        return self.description.card if self.description else None

    @property
    def in_channels(self) -> int:
        """Number of input channels."""
        return self.card.in_channels if self.card else 1

    @property
    def channel_names(self) -> tuple[str, ...]:
        """One a channel, or empty."""
        return self.card.channel_names if self.card else ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, the background first."""
        return tuple(c.name for c in self.card.classes) if self.card else ()

    @property
    def gates(self) -> int:
        """Number of attention gates."""
        return len(self.description.gates) if self.description else 0

    @property
    def stride(self) -> Shape3:
        """Multiples to which volumes are padded."""
        return self.description.stride if self.description else (1, 1, 1)

    @property
    def summary(self) -> str:
        """One line: channels, classes, gates, and how much was assumed of the file."""
        channels = "" if self.in_channels == 1 else f"{self.in_channels} channels · "
        names = ", ".join(self.classes[1:]) or "no classes"
        gates = {0: "no attention gate", 1: "1 gate"}.get(self.gates, f"{self.gates} gates")
        assumed = f" · {n} assumed" if self.card and (n := len(self.card.assumptions)) else ""
        return f"{channels}{names} · {gates}{assumed}"

    @property
    def about(self) -> str:
        """What the card says of it, for a tip: description, training data, limits, assumptions."""
        card = self.card
        if card is None:
            return ""
        lines = [
            f"{card.architecture}: {card.description}".strip(": "),
            card.training_data,
            card.limits,
            *(f"Assumed: {text}" for text in card.assumptions),
        ]
        return "\n".join(line for line in lines if line)

    def problem_with(self, volume: Volume) -> str:
        """Why a volume cannot be run, by what its shape says; empty if it can."""
        if self.card is None:
            return self.error
        if volume.channels != self.in_channels:
            plural = "s" if self.in_channels != 1 else ""
            return (
                f"{ModelStore.title(self.name)} takes {self.in_channels} channel{plural}; "
                f"'{volume.name}' has {volume.channels}. Choose another image or another model."
            )
        # both import torch, which is there once a model is
        from napari_attention_unet.checks import check_size, check_volume
        from napari_attention_unet.frame import frame_for

        try:
            check_volume(volume, self.card)
            check_size(frame_for(volume, self.card, self.stride), self.stride)
        except InputError as error:
            return str(error)
        return ""


#: What tells a model from another one: file, its state on disk, and what was said of it.
_Key = tuple[str, tuple[int, int], int, str]


class ModelStore:
    """Loads models, each file once until it changes on disk; safe to use from several threads.

    What the person says of a model (options, names of classes) holds at once, as keywords with
    which it is loaded, and is remembered for the next start by the hash of the checkpoint.
    Everything here may take seconds and belongs on a worker thread.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._kept: OrderedDict[_Key, Any] = OrderedDict()
        self._said: dict[tuple[str, tuple[int, int]], dict[str, Any]] = {}

    @staticmethod
    def title(name: str) -> str:
        """What a model is called on the screen: its bundled name, or the file's name."""
        return name if name in bundled_models() else Path(name).name

    def get(self, name: str) -> Any:
        """The model of that name, loaded if it is not yet.

        Raises
        ------
        AttentionUNetError
            If it cannot be opened; `TrustRequired` if it is the person who has to say that it may.
        """
        from napari_attention_unet.predict import load_model

        with self._lock:
            key = self._key(name)
            model = self._kept.get(key)
            if model is None:
                model = load_model(name, **self._said.get(key[:2], {}))
            self._keep(key, model)
            return model

    def state(self, name: str, option: str, value: Any) -> str:
        """Say what the checkpoint does not; what was said before stays.

        A value that does not fit stays said, so that the person sees why the model cannot be
        used, but is not remembered.

        Returns
        -------
        str
            What hinders that it is remembered, in a sentence; empty if nothing does.
        """
        with self._lock:
            said = normalization_of(value) if option == "normalization" else value
            self._of(name)[option] = said
            return self._remember(self.get(name))

    def name_network(self, name: str, architecture: str, arguments: Mapping[str, Any]) -> str:
        """Say of which Python class a network that is not known is made. Returns as `state`."""
        with self._lock:
            said = self._of(name)
            said.pop("trust", None)  # it was said of something else
            said |= {"architecture": architecture, "arguments": dict(arguments)}
            return self._remember(self.get(name))

    def name_classes(self, name: str, classes: Sequence[ClassInfo]) -> str:
        """Name and colour the classes; the network is not read again. Returns as `state`."""
        with self._lock:
            model = self.get(name)
            del self._kept[self._key(name)]
            self._of(name)["classes"] = tuple(classes)
            assumptions = without_stated(model.card.assumptions, {"classes"})
            card = replace(model.card, classes=tuple(classes), assumptions=assumptions)
            stated = {**model.stated, "classes": tuple(classes)}
            model = replace(model, card=card, stated=stated)
            self._keep(self._key(name), model)
            return self._remember(model)

    def trust(self, name: str, question: TrustRequired) -> str:
        """The person said that this content may run its code. Returns as `state`."""
        with self._lock:
            said = self._of(name)
            said["trust"] = True
            try:
                remember(question.sha256, ModelStore.title(name))
            except OSError as error:
                return f"The answer holds until napari closes; it cannot be remembered ({error})."
            return self._remember(self.get(name)) if "architecture" in said else ""

    def save_card(self, name: str) -> str:
        """Save the card beside the checkpoint. Returns what came of it, in a sentence."""
        from napari_attention_unet.describe import describe

        with self._lock:
            card = describe(self.get(name)).stated_card
            path = resolve(name)
            try:
                saved = save_card(path, card)
            except OSError as error:
                why = error.strerror or str(error)
                return (
                    f"The card cannot be saved in '{path.parent}': {why}. What you said is "
                    "remembered on this computer for you alone."
                )
            return f"Saved as {saved.name}, beside the checkpoint."

    def forget(self, name: str) -> str:
        """Take back all that was said of a model, now or at an earlier start; trust stays."""
        with self._lock:
            said = self._of(name)
            digest = self._digest(name)  # before, as a named class may be what opens it
            trust = {"trust": True} if "trust" in said and "architecture" not in said else {}
            said.clear()
            said |= trust
            digest = digest or self._digest(name)
            if digest:
                forget_card(digest)
            self._kept.clear()
            return "Back to what the checkpoint and its card say."

    def clear(self) -> None:
        """Let go of all models."""
        with self._lock:
            self._kept.clear()

    def _of(self, name: str) -> dict[str, Any]:
        """What was said of a model, to be changed."""
        return self._said.setdefault(self._key(name)[:2], {})

    def _digest(self, name: str) -> str:
        """Hash of a checkpoint's content; empty if it cannot be opened as it stands."""
        try:
            return str(self.get(name).sha256)
        except AttentionUNetError:
            return ""

    def _keep(self, key: _Key, model: Any) -> None:
        self._kept[key] = model
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def _key(self, name: str) -> _Key:
        path = resolve(name)
        on_disk = _stamp(path)
        said = self._said.get((str(path), on_disk), {})
        beside = _stamp(card_path(path))[0]
        return str(path), on_disk, beside, repr(sorted(said.items()))

    def _remember(self, model: Any) -> str:
        from napari_attention_unet.describe import describe

        try:
            remember_card(model.sha256, describe(model).stated_card)
        except OSError as error:
            return f"This holds until napari closes; it cannot be remembered ({error})."
        return ""


def _stamp(path: Path) -> tuple[int, int]:
    """Time and size of a file, of the newest and of all in a folder; 0 if there is none."""
    try:
        inside = islice(path.rglob("*"), _MOST_FILES) if path.is_dir() else [path]
        stats = [file.stat() for file in inside]
    except OSError:
        return 0, 0
    return max((s.st_mtime_ns for s in stats), default=0), sum(s.st_size for s in stats)
