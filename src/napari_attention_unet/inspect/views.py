"""Orthogonal views of a prediction as pictures: image, mask and gates, upright, true to the world.

Views are slices through one voxel. In each, a millimetre is as long as in the others; where the
anatomy is known, letters at the edges say which way the patient lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from napari_attention_unet.io.layers import GATE_COLORMAP, contrast_limits
from napari_attention_unet.prediction import GateMap, Prediction
from napari_attention_unet.volume import VIEW_ORDERS, Shape3, Volume, edge_letters

from .sampling import coefficients_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Pixels a side of a view beyond which voxels are left out.
_MOST_PIXELS = 700
_MASK_OPACITY = 0.45
_GAP = 10
_LETTER_PLACES = {
    "top": (0.5, 0.99, "center", "top"),
    "bottom": (0.5, 0.01, "center", "bottom"),
    "left": (0.01, 0.5, "left", "center"),
    "right": (0.99, 0.5, "right", "center"),
}
_ANATOMICAL = tuple(VIEW_ORDERS)
_PLAIN = ("xy", "xz", "yz")


def telling_voxel(prediction: Prediction) -> Shape3:
    """The voxel through which the slices show most of the foreground.

    Each coordinate is that of the slice with the largest area of foreground; without any
    foreground it is the middle.
    """
    foreground = np.asarray(prediction.mask) > 0
    if not foreground.any():
        z, y, x = (size // 2 for size in foreground.shape)
        return z, y, x
    z, y, x = (
        int(np.count_nonzero(foreground, axis=tuple(a for a in range(3) if a != axis)).argmax())
        for axis in range(3)
    )
    return z, y, x


@dataclass(frozen=True)
class _Slice:
    """One view: which voxels it shows, and how large they are.

    Attributes
    ----------
    order : tuple of int
        Sliced axis, axis that runs down, axis that runs to the right.
    at : int
        Voxel along the sliced axis.
    rows, columns : int arrays
        Voxels that are shown.
    """

    order: tuple[int, int, int]
    at: int
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]

    def take(self, array: Any) -> npt.NDArray[Any]:
        """The slice of an array (z, y, x), rows down."""
        index: list[Any] = [slice(None)] * 3
        index[self.order[0]] = self.at
        plane = np.asarray(array[tuple(index)])
        if self.order[1] > self.order[2]:
            plane = plane.T
        return plane[np.ix_(self.rows, self.columns)]

    def coefficients(self, gate: GateMap) -> npt.NDArray[np.float32]:
        """A gate's coefficients at the voxels, linear between its samples."""
        points = np.empty((len(self.rows), len(self.columns), 3))
        points[..., self.order[0]] = self.at
        points[..., self.order[1]] = self.rows[:, None]
        points[..., self.order[2]] = self.columns
        return coefficients_at(gate, points, "linear").reshape(points.shape[:2])


class Views:
    """Draws the three orthogonal views of one prediction through one voxel.

    Parameters
    ----------
    prediction : Prediction
    image : Volume or None
        The volume that was run, with its voxels; None draws on black.
    voxel : tuple of int
        The point (z, y, x) that all slices pass.
    channel : int
        Channel of the image.
    width : int
        Of the pictures, in pixels.
    """

    def __init__(
        self,
        prediction: Prediction,
        image: Volume | None,
        voxel: Shape3,
        channel: int = 0,
        width: int = 960,
    ) -> None:
        self.prediction = prediction
        self.voxel = voxel
        self._width = width
        shape, self._spacing = prediction.mask.shape, prediction.volume.spacing
        self._slices = []
        for order in VIEW_ORDERS.values():
            rows, columns = (
                np.arange(0, shape[axis], -(-shape[axis] // _MOST_PIXELS)) for axis in order[1:]
            )
            self._slices.append(_Slice(order, voxel[order[0]], rows, columns))
        self._extents = [
            (shape[s.order[1]] * self._spacing[s.order[1]],
             shape[s.order[2]] * self._spacing[s.order[2]])
            for s in self._slices
        ]  # fmt: skip
        self._image = None if image is None else [s.take(image.data[channel]) for s in self._slices]

    @property
    def names(self) -> tuple[str, ...]:
        """What the three views are called."""
        return _ANATOMICAL if self.prediction.volume.orientation else _PLAIN

    def image_and_mask(self) -> Figure:
        """The image, with the mask in the colours of its classes."""
        figure, axes = self._figure()
        for ax, view, extent in zip(axes, self._slices, self._boxes(), strict=True):
            labels = view.take(self.prediction.mask)
            colours = np.zeros((*labels.shape, 4))
            for value, info in enumerate(self.prediction.classes):
                if value > 0:
                    colours[labels == value] = (*to_rgb(info.color), _MASK_OPACITY)
            ax.imshow(colours, extent=extent, interpolation="nearest")
        return figure

    def gate(self, gate: GateMap) -> Figure:
        """The image, with one gate's coefficients and the outline of the foreground."""
        figure, axes = self._figure()
        low, high = contrast_limits(gate.coefficients, gate.kind)
        colours = ListedColormap(GATE_COLORMAP["colors"])
        for ax, view, extent in zip(axes, self._slices, self._boxes(), strict=True):
            alpha = view.coefficients(gate)
            ax.imshow(
                alpha, cmap=colours, vmin=low, vmax=high, extent=extent, interpolation="nearest"
            )
            foreground = view.take(self.prediction.mask) > 0
            if foreground.any() and not foreground.all() and min(foreground.shape) > 1:
                ax.contour(
                    foreground, levels=[0.5], colors="white", linewidths=0.6, extent=extent,
                    origin="upper",
                )  # fmt: skip
        return figure

    def _boxes(self) -> list[tuple[float, float, float, float]]:
        """Left, right, bottom and top of each view in the world, from its first voxel's edge."""
        return [(0.0, across, down, 0.0) for down, across in self._extents]

    def _figure(self) -> tuple[Figure, list[Axes]]:
        """The bare image in each view, with letters and the lines of the other two slices."""
        across = sum(width for _, width in self._extents)
        down = max(height for height, _ in self._extents)
        scale = (self._width - 2 * _GAP) / across  # pixels a unit of the world
        height = max(1, round(down * scale))
        figure = Figure((self._width / 100, height / 100), dpi=100, facecolor="black")
        axes, left = [], 0.0
        for index, (rows, columns) in enumerate(self._extents):
            size = columns * scale / self._width, rows * scale / height
            ax = figure.add_axes((left, (1 - size[1]) / 2, *size))
            left += size[0] + _GAP / self._width
            ax.set_axis_off()
            self._ground(ax, index)
            axes.append(ax)
        return figure, axes

    def _ground(self, ax: Axes, index: int) -> None:
        view, extent = self._slices[index], self._boxes()[index]
        if self._image is None:
            grey = np.zeros((len(view.rows), len(view.columns)))
            limits = 0.0, 1.0
        else:
            grey = self._image[index]
            limits = self._window()
        ax.imshow(
            grey, cmap="gray", vmin=limits[0], vmax=limits[1], extent=extent,
            interpolation="nearest", aspect="auto",
        )  # fmt: skip
        _, down, right = view.order
        at = [(self.voxel[axis] + 0.5) * self._spacing[axis] for axis in (right, down)]
        ax.axvline(at[0], color="#7fb8ff", linewidth=0.5, alpha=0.6)
        ax.axhline(at[1], color="#7fb8ff", linewidth=0.5, alpha=0.6)
        orientation = self.prediction.volume.orientation
        if orientation:
            for edge, letter in edge_letters(orientation, view.order).items():
                x, y, horizontal, vertical = _LETTER_PLACES[edge]
                ax.text(
                    x, y, letter, ha=horizontal, va=vertical, transform=ax.transAxes,
                    color="white", fontsize=9, fontweight="bold",
                    path_effects=[withStroke(linewidth=2.5, foreground="black")],
                )  # fmt: skip

    def _window(self) -> tuple[float, float]:
        """Intensities from black to white: the 1st to 99.5th percentile of what is shown."""
        assert self._image is not None
        values = np.concatenate([plane.ravel() for plane in self._image]).astype(np.float64)
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, (1, 99.5)) if values.size else (0.0, 1.0)
        return float(low), float(max(high, low + 1e-12))
