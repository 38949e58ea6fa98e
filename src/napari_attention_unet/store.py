"""A zarr group that a run writes into, and goes on with if it was stopped.

The group's attribute ``attention_unet`` says what the group holds. Until the run is complete it has
``complete`` false, the fingerprint of the run, and how many planes of each array are written; in
the end it is the provenance, with ``complete`` true. A plane counts as written after it was, so a
run that is killed at any moment loses at most the row of chunks that it was writing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from napari_attention_unet.errors import OutputError
from napari_attention_unet.frame import Frame
from napari_attention_unet.targets import Kind, ZarrTarget, chunks_for

#: Attribute of the group, and of layers made of it.
KEY = "attention_unet"
_ARRAYS = ("mask", "probabilities", "logits")


class Store:
    """The arrays of a run in a zarr group.

    Parameters
    ----------
    group : zarr.Group
        Where to write.
    kinds : sequence of Kind
        What to write.
    frame : Frame
        How the network's axes lie on the caller's.
    fingerprint : dict
        Plain JSON types: all that the values depend on. A group with the same one goes on where it
        is; of any other, the results go.

    Attributes
    ----------
    targets : dict of str to ZarrTarget
        By the name of their kind.
    resumed : bool
        Whether the group had planes of an equal run.

    Raises
    ------
    OutputError
        If the group cannot be written to.
    """

    def __init__(
        self, group: Any, kinds: Sequence[Kind], frame: Frame, fingerprint: Mapping[str, Any]
    ) -> None:
        self._group, self._fingerprint = group, dict(fingerprint)
        self.targets: dict[str, ZarrTarget] = {}
        try:
            done = self._earlier(kinds, frame)
            self.resumed = bool(done)
            if not done:
                self._clear()
            for kind in kinds:
                array = group[kind.name] if done else self._create(kind, frame)
                self.targets[kind.name] = ZarrTarget(
                    kind, frame, array, done.get(kind.name, 0), self._record
                )
            self._record()
        except OSError as error:
            raise OutputError(f"The zarr group cannot be written to: {error}.") from error

    def complete(self, provenance: Mapping[str, Any]) -> None:
        """Everything is written: say so, and where it came from."""
        about = {**provenance, "complete": True, "fingerprint": self._fingerprint}
        try:
            for target in self.targets.values():
                self._group[target.kind.name].attrs["complete"] = True
            self._group.attrs[KEY] = about | {"planes": self._planes()}
        except OSError as error:
            raise OutputError(f"The results could not be marked as complete: {error}.") from error

    def replace(self, name: str, values: Any) -> None:
        """Write a whole array anew.

        Parameters
        ----------
        name : str
            Of its kind.
        values : numpy array
            On the caller's axes.
        """
        try:
            self._group[name][...] = values
        except OSError as error:
            raise OutputError(f"'{name}' could not be written: {error}.") from error

    def _planes(self) -> dict[str, int]:
        return {name: target.done for name, target in self.targets.items()}

    def _record(self) -> None:
        """How far the run is; zarr replaces the attributes in one piece."""
        self._group.attrs[KEY] = {
            "complete": False,
            "fingerprint": self._fingerprint,
            "planes": self._planes(),
        }

    def _earlier(self, kinds: Sequence[Kind], frame: Frame) -> dict[str, int]:
        """Planes that an equal run wrote; empty without one."""
        about = self._group.attrs.get(KEY)
        if not isinstance(about, Mapping) or about.get("fingerprint") != self._fingerprint:
            return {}
        planes = about.get("planes") or {}
        for kind in kinds:
            array = self._group.get(kind.name)
            if array is None or kind.name not in planes:
                return {}
            if (tuple(array.shape), array.dtype) != (kind.shape(frame), kind.dtype):
                return {}
        return {str(name): int(count) for name, count in planes.items()}

    def _clear(self) -> None:
        """Take away what an earlier run wrote, its summary first."""
        if KEY not in self._group.attrs:
            return
        self._group.attrs[KEY] = {"complete": False}
        for name in (*_ARRAYS, "gates"):
            with suppress(KeyError):
                del self._group[name]

    def _create(self, kind: Kind, frame: Frame) -> Any:
        return self._group.create_array(
            kind.name,
            shape=kind.shape(frame),
            dtype=kind.dtype,
            chunks=chunks_for(kind, frame),
            overwrite=True,
            attributes={**kind.attributes, "complete": False},
        )
