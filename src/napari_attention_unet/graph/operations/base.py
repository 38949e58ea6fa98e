"""What every operation of a lowered network can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from napari_attention_unet.graph.graph import Extent, Ref, substitute
from napari_attention_unet.volume import Shape3

#: Floating-point operations in the time in which one number is read or written.
_NUMBER = 80.0

Range = tuple[int, int]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """Which planes of an operation's output are wanted.

    Attributes
    ----------
    start, stop : int
        Half-open range of output planes.
    depths : tuple of int
        Planes that each input has in all.
    depth : int
        Planes that the output has in all.
    extent : tuple of int
        Spatial shape (z, y, x) of the network's input.
    """

    start: int
    stop: int
    depths: tuple[int, ...]
    depth: int
    extent: Shape3


@dataclass(frozen=True, eq=False)
class Operation:
    """One step of a lowered network.

    Attributes
    ----------
    name : str
        The value that it makes: a node of the graph.
    inputs : tuple of str
        The values that it reads.
    dtype : torch.dtype
        In which it computes; inputs of another type are cast.
    """

    name: str
    inputs: tuple[str, ...]
    dtype: torch.dtype

    @property
    def result(self) -> torch.dtype:
        """Type of its output."""
        return self.dtype

    @property
    def local(self) -> bool:
        """Whether a range of output planes needs but a range of input planes."""
        return True

    @property
    def aligned(self) -> bool:
        """Whether each output plane needs but the same plane of every input."""
        return True

    def reads(
        self, axis: int, start: int, stop: int, sizes: Sequence[int], size: int
    ) -> list[Range]:
        """Range of each input that ``start..stop`` of the output needs, along one axis.

        Parameters
        ----------
        axis : int
            0, 1, 2 for z, y, x.
        start, stop : int
            Half-open range of the output.
        sizes : sequence of int
            Of the inputs along the axis.
        size : int
            Of the output along the axis.
        """
        return [(0, 1) if n == 1 else (start, stop) for n in sizes]

    def spans(self, start: int, stop: int, depths: Sequence[int], depth: int) -> list[Range]:
        """Planes of each input that make every range alike, for executors that keep zero planes.

        Like `reads` along z, but where zeros are put beyond the ends, with the planes beyond them:
        negative ones before the first, those from the depth on after the last.
        """
        return self.reads(0, start, stop, depths, depth)

    def run(self, pieces: Sequence[Any], window: Window) -> Any:
        """Planes ``window.start..stop`` of the output.

        Parameters
        ----------
        pieces : sequence
            Of each input, the planes that `reads` asks for, or those of `spans`.
        window : Window
            Which planes.
        """
        raise NotImplementedError

    def run_into(self, pieces: Sequence[Any], window: Window, out: Tensor) -> None:
        """The same, written into given planes."""
        out.copy_(self.run(pieces, window))

    def work(self, shape: Shape, inputs: Sequence[Shape]) -> float:
        """Floating-point operations, or their equivalent in time, for an output of that shape."""
        return _NUMBER * (prod(shape) + sum(prod(s) for s in inputs))

    def cast(self, value: Any) -> Any:
        """A tensor of real numbers in the type in which this computes; anything else as it is."""
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(self.dtype)
        return value


@dataclass(frozen=True, eq=False)
class Pointwise(Operation):
    """Any operator that treats planes alike: element by element, or along channels.

    Attributes
    ----------
    target : callable
        The ATen operator.
    args, kwargs
        Its arguments, with `Ref` for the inputs and tensors for constants.
    """

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def run(self, pieces: Sequence[Any], window: Window) -> Any:
        """The operator on the planes as they are."""
        known = {n: self.cast(p) for n, p in zip(self.inputs, pieces, strict=True)}

        def value(leaf: Any) -> Any:
            if isinstance(leaf, Ref):
                return known[leaf.name]
            return leaf.at(window.extent) if isinstance(leaf, Extent) else leaf

        return self.cast(self.target(*substitute(self.args, value), **self.kwargs))


@dataclass(frozen=True, eq=False)
class Whole(Pointwise):
    """Any operator of which nothing is known: all of the output from all of the inputs."""

    @property
    def local(self) -> bool:
        """It needs all."""
        return False

    @property
    def aligned(self) -> bool:
        """It needs all."""
        return False

    def reads(
        self, axis: int, start: int, stop: int, sizes: Sequence[int], size: int
    ) -> list[Range]:
        """All of every input."""
        return [(0, n) for n in sizes]
