"""From the names and shapes of a checkpoint's tensors to the network that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

from .families import FAMILIES, Family
from .families.family import State, listed


@dataclass(frozen=True)
class Recognised:
    """A state_dict and the network that it belongs to.

    Attributes
    ----------
    family : Family
        The network.
    state : Mapping
        The state_dict, without prefixes of wrappers.
    left : tuple of str
        Keys of tensors beside the network, such as a loss's, that were left out.
    """

    family: Family
    state: State
    left: tuple[str, ...] = ()


def recognise(state: State) -> Recognised | None:
    """Find the network of a state_dict.

    Prefixes that wrappers put before every name (``module.``, ``_orig_mod.``, ...) are taken off
    one by one, but only while nothing is recognised: some networks have such names of their own.
    Where names have several prefixes, as in a training module that holds a loss beside the
    network, the one with most tensors is tried alone.
    """
    left: tuple[str, ...] = ()
    while True:
        for family in FAMILIES:
            if family.matches(state):
                return Recognised(family, state, left)
        heads = [key.partition(".")[0] for key in state if "." in key]
        if not heads:
            return None
        head = max(dict.fromkeys(heads), key=heads.count)
        left += tuple(key for key in state if not key.startswith(f"{head}."))
        inner = {k[len(head) + 1 :]: t for k, t in state.items() if k.startswith(f"{head}.")}
        state = inner


def nearest(state: State) -> str:
    """What a state_dict that is not recognised is most like, and where it differs, for an error."""
    candidates = [state]
    heads = {key.partition(".")[0] for key in state}
    if len(heads) == 1:  # the prefix of a wrapper
        candidates.append({key.partition(".")[2]: tensor for key, tensor in state.items()})
    tried = [(family.likeness(s), family, s) for s in candidates for family in FAMILIES]
    likeness, family, closest = max(tried, key=lambda item: item[0])
    if not likeness:
        return "It is like none of them."
    return f"It is most like {family.name}; {listed(family.differences(closest))}."
