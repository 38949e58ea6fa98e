"""What a family of checkpoints is, and how one is opened.

A family is a kind of network that people have checkpoints of. It tells its own from others by
the keys of a state dict, reads every size off the shapes, and builds the network under the same
parameter names, so that the weights load strictly. What keys and shapes leave open is an
`Option` with a default; whatever was not chosen by the caller is stated as an assumption.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from napari_attention_unet.errors import CheckpointError

State = Mapping[str, Tensor]
#: Plain attributes of the modules of a pickled model, by path; ``"class"`` names their class.
Modules = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Option:
    """Something that a checkpoint does not say.

    Attributes
    ----------
    name : str
        Keyword of `load_model`.
    default : object
        Taken where the caller says nothing.
    choices : tuple
        Allowed values; empty where any value of the default's kind will do.
    assumption : str
        What taking the default means, as a sentence.
    applies : callable
        Whether it is a question at all for a network of these arguments.
    hint : tuple of str
        Class and attribute of a module that tell it where the whole model was pickled.
    """

    name: str
    default: Any
    choices: tuple[Any, ...]
    assumption: str
    applies: Callable[[dict[str, Any]], bool] = field(default=lambda _: True, repr=False)
    hint: tuple[str, str] | None = None

    def hinted(self, modules: Modules) -> Any:
        """What the attributes of a pickled model say; None if nothing."""
        if self.hint is None:
            return None
        kind, name = self.hint
        for attributes in modules.values():
            value = attributes.get(name)
            if attributes["class"].rpartition(".")[2] == kind and value is not None:
                return value if not self.choices or value in self.choices else None
        return None


#: Order of the spatial axes in the arrays that the network was trained on.
AXES = Option(
    "axes",
    "zyx",
    ("zyx", "xyz"),
    "The network was taken to expect its spatial axes in the order z, y, x; axes='xyz' is for "
    "one that was trained on arrays as nibabel gives them.",
)


@dataclass(frozen=True)
class Built:
    """A network rebuilt from a state dict, its weights loaded.

    Attributes
    ----------
    module : nn.Module
        In eval mode, float32, on the CPU; gives logits, shape (batch, class, z, y, x).
    family : str
        Name of the family.
    arguments : dict
        What was read off the shapes.
    options : dict
        Value of each option that applies. The order of axes is not among them: the module's own
        weights are in the order z, y, x.
    assumptions : tuple of str
        What the state dict did not say and the caller did not choose, one sentence each.
    in_channels, out_channels : int
        Channels of the input, and of the logits.
    activation : str
        Of the output: ``"softmax"``, or ``"sigmoid"`` where classes are independent.
    """

    module: nn.Module
    family: str
    arguments: dict[str, Any]
    options: dict[str, Any]
    assumptions: tuple[str, ...]
    in_channels: int
    out_channels: int
    activation: str


@dataclass(frozen=True)
class Family:
    """A kind of network that people have checkpoints of.

    Attributes
    ----------
    name : str
        Name shown to people.
    source : str
        Where such networks come from.
    signature : tuple of str
        Regular expressions; each must match a key, in full.
    read : callable
        Arguments of `make`, read off the shapes of a state dict; must hold ``"in_channels"`` and
        ``"out_channels"``. May raise KeyError, IndexError or ValueError on a foreign state dict.
    make : callable
        Builds the network from arguments and the options that apply.
    options : tuple of Option
        What keys and shapes leave open, besides the order of axes.
    planar : bool
        Whether a 2D network of this family may be run slice by slice: true if no layer takes
        statistics over space.
    notes : callable
        Further assumptions, by arguments.
    activation : callable
        The output's activation, by number of output channels.
    """

    name: str
    source: str
    signature: tuple[str, ...]
    read: Callable[[State], dict[str, Any]]
    make: Callable[..., nn.Module]
    options: tuple[Option, ...] = ()
    planar: bool = False
    notes: Callable[[dict[str, Any]], tuple[str, ...]] = field(default=lambda _: (), repr=False)
    activation: Callable[[int], str] = field(
        default=lambda count: "sigmoid" if count == 1 else "softmax", repr=False
    )

    def matches(self, state: State) -> bool:
        """Whether a state dict has this family's keys."""
        return all(any(re.fullmatch(p, key) for key in state) for p in self.signature)

    def build(self, state: State, modules: Modules | None = None, **options: Any) -> Built:
        """Rebuild the network and load the weights, strictly.

        Parameters
        ----------
        state : mapping of str to Tensor
            Parameters and buffers, any floating dtype.
        modules : mapping of str to mapping, optional
            Attributes of the modules, where the whole model was pickled.
        **options
            Values for `Option`; those of other families are not accepted.

        Raises
        ------
        CheckpointError
            If keys or shapes do not fit, or an option is unknown; the message names the first
            keys that differ.
        """
        order = options.pop("axes", None)
        flat = _is_planar(state)
        if flat and not self.planar:
            raise CheckpointError(
                f"This looks like a 2D {self.name}. Run slice by slice, its layers that take "
                "statistics over space would not see what they were trained on. A 3D "
                "checkpoint would work."
            )
        state = _in_order(_lifted(state) if flat else state, order or AXES.default)
        try:
            arguments = self.read(state)
        except (KeyError, IndexError, ValueError) as error:
            raise CheckpointError(
                f"This looks like {self.name}, but its sizes cannot be read: {error}. "
                "A complete state dict of that network would work."
            ) from error
        _refuse_unknown(self, options)
        asked = [o for o in self.options if o.applies(arguments)]
        told = {o.name: o.hinted(modules or {}) for o in asked}
        told |= {name: value for name, value in options.items() if value is not None}
        chosen = {o.name: _value(o, told.get(o.name), arguments) for o in asked}
        module = self._module(arguments, chosen)
        self._load(module, state)
        taken = [o for o in asked if told.get(o.name) is None]
        assumptions = [o.assumption for o in taken]
        if order is None:
            assumptions.insert(0, AXES.assumption)
        elif order != AXES.default:
            assumptions.append(f"Kernels were turned from the order {', '.join(order)} to z, y, x.")
        if flat:
            assumptions.append("The network is 2D and was run on each slice (y, x) by itself.")
        return Built(
            module=module.eval().requires_grad_(False),
            family=self.name,
            arguments=arguments,
            options=chosen,
            assumptions=(*assumptions, *self.notes(arguments)),
            in_channels=int(arguments["in_channels"]),
            out_channels=int(arguments["out_channels"]),
            activation=self.activation(int(arguments["out_channels"])),
        )

    def likeness(self, state: State) -> float:
        """How much of the signature is there, 0..1."""
        found = [any(re.fullmatch(p, key) for key in state) for p in self.signature]
        return sum(found) / len(found)

    def differences(self, state: State) -> dict[str, list[str]]:
        """Keys that the state dict lacks and has too many, sizes read off it where they can be."""
        missing = [p for p in self.signature if not any(re.fullmatch(p, k) for k in state)]
        try:
            arguments = self.read(state)
            options = {
                o.name: _value(o, None, arguments) for o in self.options if o.applies(arguments)
            }
            have = list(self._module(arguments, options).state_dict())
        except (KeyError, IndexError, ValueError, CheckpointError):
            return {"missing": [p.replace("\\", "") for p in missing]}
        return {
            "missing": [k for k in have if k not in state and not k.endswith(COUNTER)],
            "not known": [k for k in state if k not in have],
        }

    def _module(self, arguments: dict[str, Any], options: dict[str, Any]) -> nn.Module:
        # On the meta device nothing is allocated or initialised: the weights come from the file.
        try:
            with torch.device("meta"):
                return self.make(**arguments, **options)
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            raise CheckpointError(
                f"{self.name} cannot be built as the checkpoint says: {error}."
            ) from error

    def _load(self, module: nn.Module, state: State) -> None:
        expected = module.state_dict()
        state = dict(state)
        for key, tensor in expected.items():  # of use in training alone; old files lack it
            if key.endswith(COUNTER):
                state.setdefault(key, torch.zeros(tensor.shape, dtype=tensor.dtype))
        differing = {
            "missing": [key for key in expected if key not in state],
            "not known": [key for key in state if key not in expected],
            "other shape": [
                f"{key} {tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
                for key, tensor in expected.items()
                if key in state and state[key].shape != tensor.shape
            ],
        }
        if any(differing.values()):
            raise CheckpointError(
                f"The checkpoint looks like {self.name}, but its tensors differ; "
                f"{listed(differing)}. A state dict of {self.source} itself would work."
            )
        module.load_state_dict(_float32(state), strict=True, assign=True)


#: A number that batch normalisation counts training by.
COUNTER = "num_batches_tracked"


def listed(named: Mapping[str, list[str]]) -> str:
    """The first few keys of each list, under its name; empty lists are left out."""
    return "; ".join(
        f"{what}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
        for what, keys in named.items()
        if keys
    )


def _value(option: Option, value: Any, arguments: dict[str, Any]) -> Any:
    if value is None:
        return option.default(arguments) if callable(option.default) else option.default
    if option.choices and value not in option.choices:
        raise CheckpointError(
            f"{option.name}={value!r} is not possible; {option.name} is one of "
            f"{', '.join(map(repr, option.choices))}."
        )
    return value


def _refuse_unknown(family: Family, given: Mapping[str, Any]) -> None:
    names = [o.name for o in family.options]
    for name in given:
        if name not in names:
            raise CheckpointError(
                f"{family.name} has no option '{name}'; there are {', '.join([*names, 'axes'])}."
            )


def _float32(state: State) -> dict[str, Tensor]:
    return {
        key: value.detach().to("cpu", torch.float32) if value.is_floating_point() else value
        for key, value in state.items()
    }


def _is_planar(state: State) -> bool:
    ranks = {value.ndim for value in state.values()}
    return 4 in ranks and 5 not in ranks


def _lifted(state: State) -> dict[str, Tensor]:
    """The 3D network that does to each slice what a 2D network does: its kernels are flat."""
    return {k: v.unsqueeze(2) if v.ndim == 4 else v for k, v in state.items()}


def _in_order(state: State, order: str) -> dict[str, Tensor]:
    """The network that does to arrays (z, y, x) what the given one does to its own order.

    All layers treat their axes alike, so permuting the kernels is all that is needed.
    """
    if order not in AXES.choices:
        raise CheckpointError(f"axes={order!r} is not possible; it is 'zyx' or 'xyz'.")
    if order == "zyx":
        return dict(state)
    axes = [2 + order.index(axis) for axis in "zyx"]
    return {k: v.permute(0, 1, *axes).contiguous() if v.ndim == 5 else v for k, v in state.items()}


def shape(state: State, key: str) -> tuple[int, ...]:
    """Shape of a tensor of the state dict, as plain ints."""
    return tuple(int(n) for n in state[key].shape)


def count(state: State, pattern: str) -> int:
    """How many numbers the group of `pattern` takes among the keys, starting from the least.

    Raises
    ------
    ValueError
        If there are none, or they have gaps.
    """
    found = sorted({int(m[1]) for key in state if (m := re.match(pattern, key))})
    if not found or found != list(range(found[0], found[0] + len(found))):
        raise ValueError(f"numbers {found} in keys like '{pattern}'")
    return len(found)
