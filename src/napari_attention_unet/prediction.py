"""What a run gives: the mask, every gate's coefficients, and where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from .models.card import ClassInfo
from .volume import Vec3, Volume

if TYPE_CHECKING:
    import xarray

    from .io.save import Format


@dataclass(frozen=True)
class GateMap:
    """The coefficients of one attention gate, on the grid on which the network computes them.

    Attributes
    ----------
    name : str
        The gate's module in the network, e.g. ``"att4"``.
    coefficients : array, shape (z, y, x), float32 or float16
        Attention coefficients; 0..1 for a sigmoid gate, summing to 1 for a spatial softmax. A numpy
        array, or a dask array where they lie in a zarr group or are stored scaled to bytes:
        ``numpy.asarray(gate.coefficients)`` is right for both.
    scale, translate : tuple of float
        Per axis (z, y, x), sample ``j`` has its centre at voxel ``translate + scale * j`` of the
        array that was passed to `predict`.
    kind : str
        ``"sigmoid"``, ``"softmax"``, ``"squeeze-excitation"`` or ``"candidate"``.
    stride : tuple of float
        Distance of samples along z, y, x in voxels of the network's own grid, e.g. (2, 2, 2).
    forced : bool
        Whether the coefficients were imposed by the caller instead of computed.
    """

    name: str
    coefficients: npt.NDArray[np.floating[Any]]
    scale: Vec3
    translate: Vec3
    kind: str = "sigmoid"
    stride: Vec3 = (1.0, 1.0, 1.0)
    forced: bool = False

    @property
    def label(self) -> str:
        """Resolution of the grid, e.g. ``"1/2"``, or ``"1/2·1/4·1/4"`` where axes differ."""
        parts = [f"1/{s:g}" if s > 1 else "1/1" for s in self.stride]
        return parts[0] if len(set(parts)) == 1 else "·".join(parts)


@dataclass(frozen=True, repr=False)
class Prediction:
    """The result of one run.

    Attributes
    ----------
    mask : array, shape (z, y, x), integer
        Label map on the caller's grid; the values index `classes`. A numpy array; a dask array
        where the run wrote into a zarr group (`Settings.out`), as are the two that follow.
    gates : tuple of GateMap
        In the order in which the network runs them.
    probabilities, logits : array, shape (class, z, y, x), float32, or None
        On the caller's grid; None when not asked for.
    classes : tuple of ClassInfo
        Names and colours; ``classes[0]`` is the background.
    volume : Volume
        The volume that was run (its `data` may be released: use it for geometry).
    provenance : dict
        Plain JSON types: model name and SHA-256, architecture, options, versions, device,
        precision, plan, voxel size, each gate's grid and timings.
    """

    mask: npt.NDArray[np.integer[Any]]
    gates: tuple[GateMap, ...]
    classes: tuple[ClassInfo, ...]
    volume: Volume
    probabilities: npt.NDArray[np.float32] | None = None
    logits: npt.NDArray[np.float32] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def gate(self, name: str) -> GateMap:
        """The gate of that name; KeyError names the ones there are."""
        for gate in self.gates:
            if gate.name == name:
                return gate
        raise KeyError(f"no gate '{name}'; there are {[g.name for g in self.gates]}")

    def __repr__(self) -> str:
        """In one line; the arrays are too long for one."""
        gates = ", ".join(f"{gate.name} {tuple(gate.coefficients.shape)}" for gate in self.gates)
        size = tuple(self.mask.shape)
        return f"Prediction({self.volume.name!r}, mask {size}, gates: {gates or 'none'})"

    # What follows is for scripts and notebooks, and done in the layers above.

    def _repr_html_(self) -> str:
        from napari_attention_unet.notebook import html

        return html(self)

    def save(self, folder: str | Path, format: str = "auto") -> Path:  # noqa: A002
        """Save it in a folder of its own; see `napari_attention_unet.io.save`."""
        from napari_attention_unet.io.save import save

        return save(self, folder, cast("Format", format))

    def to_layers(self) -> list[tuple[Any, dict[str, Any], str]]:
        """Mask, probabilities and gates as napari takes them, placed by the volume's geometry.

        Returns
        -------
        list of (data, keyword arguments, layer type)
            For ``napari.layers.Layer.create``.
        """
        from napari_attention_unet.io.result_layers import prediction_layers

        return prediction_layers([self])

    def to_xarray(self) -> xarray.Dataset:
        """A dataset with world coordinates; see `napari_attention_unet.notebook.to_xarray`."""
        from napari_attention_unet.notebook import to_xarray

        return to_xarray(self)


Slices = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Region:
    """What a run finished since the step before, while the rest is still to come.

    Attributes
    ----------
    partial : Prediction
        The result as far as it is: one object for the whole run, whose arrays are filled in place
        by the thread that runs. What is not finished yet is 0.
    mask : three slices, or None
        Voxels (z, y, x) of ``partial.mask``, and of probabilities and logits, that are finished
        now; None if none are.
    gates : dict of str to three slices
        Samples of each gate's ``coefficients`` that are finished now; gates without any are left
        out.
    """

    partial: Prediction
    mask: Slices | None
    gates: Mapping[str, Slices]


@dataclass(frozen=True)
class Step:
    """Progress of a run.

    Attributes
    ----------
    done, total : float
        Work finished and work in all, in the same arbitrary unit; ``done`` never decreases.
    message : str
        What is going on, for the person at the screen.
    prediction : Prediction or None
        Set on the last step alone.
    region : Region or None
        Set where planes of the result were finished, when the volume is streamed or run in tiles.
    """

    done: float
    total: float
    message: str = ""
    prediction: Prediction | None = None
    region: Region | None = None
