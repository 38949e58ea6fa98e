"""A pickle machine that builds plain containers and records of names, and calls nothing.

Opcodes are decoded by `pickletools.genops`, which runs none; what each does is written here, so
there is no route (REDUCE, INST, OBJ, NEWOBJ, BUILD, extension registry, persistent ids) by which
a file could reach an object of this process. Time and memory are bounded by the number of
opcodes, and the number of opcodes by `MAX_OPCODES`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, cast

MAX_OPCODES = 500_000
_KEY_LENGTH = 16
_PLAIN = (str, int, float, bool, bytes, type(None))


class UnsafePickleError(ValueError):
    """A pickle is damaged, or does what no checkpoint does."""


@dataclass(frozen=True)
class Named:
    """A class or function that a pickle named. It was not looked up.

    Attributes
    ----------
    module, name : str
        As in the file.
    """

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Inert:
    """What would have been an object: the record of how it would have been made.

    Attributes
    ----------
    made_by : Named or Inert or other
        What would have been called.
    arguments : tuple
        With what.
    state : object
        What `BUILD` would have given it; None if nothing.
    elements : list
        Appended or added to it.
    items : dict
        Set in it by key.
    """

    made_by: Any
    arguments: tuple[Any, ...] = ()
    state: Any = None
    elements: list[Any] = field(default_factory=list)
    items: dict[Any, Any] = field(default_factory=dict)

    def __repr__(self) -> str:  # arguments may be deep, or contain the object itself
        return f"<inert {self.made_by if isinstance(self.made_by, Named) else 'object'}>"

    def attributes(self) -> dict[Any, Any]:
        """Its attributes: the state, where that is a dict, or the dict within its pair."""
        states = self.state if isinstance(self.state, tuple) else (self.state,)
        found: dict[Any, Any] = {}
        for state in states[:2]:
            if isinstance(state, dict):
                found.update(state)
        return found


class Readable(Protocol):
    """What `pickletools.genops` reads from."""

    def read(self, number: int, /) -> bytes:
        """Up to so many bytes."""
        ...

    def readline(self) -> bytes:
        """Up to the end of the line."""
        ...


#: Turns a named callable and its arguments into an object, or gives None for an inert one.
Rebuild = Callable[[Named, tuple[Any, ...]], Any]
#: Turns a persistent id into an object.
Persistent = Callable[[Any], Any]


def _refuse_persistent(identifier: Any) -> Any:
    raise UnsafePickleError("it refers to data outside itself")


class Machine:
    """Runs one pickle.

    Parameters
    ----------
    rebuild : callable
        Makes the few objects that are not to stay inert.
    persistent : callable
        Resolves persistent ids.
    max_opcodes : int
        Give up after this many.
    """

    def __init__(
        self,
        rebuild: Rebuild,
        persistent: Persistent = _refuse_persistent,
        max_opcodes: int = MAX_OPCODES,
    ) -> None:
        self._rebuild, self._persistent = rebuild, persistent
        self._left = max_opcodes
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self, stream: Readable) -> Any:
        """Run the pickle at the position of `stream`, which is left behind it.

        Raises
        ------
        UnsafePickleError
            If it is damaged, too long, or uses an opcode that no checkpoint needs.
        """
        self._stack, self._marked, self._memo = [], [], {}
        try:
            for opcode, argument, _ in pickletools.genops(cast("IO[bytes]", stream)):
                self._left -= 1
                if self._left < 0:
                    raise UnsafePickleError("it has more instructions than any checkpoint")
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._step(opcode.name, argument)
        except UnsafePickleError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
            raise UnsafePickleError(f"its pickle is damaged ({error})") from error
        raise UnsafePickleError("its pickle is cut short")

    def _step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _GETS:
            self._stack.append(self._memo[argument])
        elif name in _PUTS:
            self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
        elif name not in ("PROTO", "FRAME"):
            handler = _HANDLERS.get(name)
            if handler is None:
                raise UnsafePickleError(f"it uses the instruction {name}, as no checkpoint does")
            handler(self, argument)

    def _to_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marked.pop()
        return items

    def _pop(self, number: int) -> list[Any]:
        if len(self._stack) < number:
            raise UnsafePickleError("its pickle is damaged (nothing is left to take)")
        items = self._stack[-number:]
        del self._stack[-number:]
        return items

    # One method an opcode, or a group of them.

    def _mark(self, _: Any) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _drop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._stack = self._marked.pop()

    def _drop_to_mark(self, _: Any) -> None:
        self._to_mark()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _tuple(self, number: int) -> None:
        self._stack.append(tuple(self._pop(number)))

    def _tuple_to_mark(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append(tuple(items))

    def _list(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append({})
        self._set(items)

    def _append(self, _: Any) -> None:
        self._extend(self._pop(1))

    def _appends(self, _: Any) -> None:
        self._extend(self._to_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Inert):
            target = target.elements
        if isinstance(target, list):
            target.extend(items)

    def _set_item(self, _: Any) -> None:
        self._set(self._pop(2))

    def _set_items(self, _: Any) -> None:
        self._set(self._to_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Inert):
            target = target.items
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=False):
                target[_hashable(key)] = value

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(Named(module, name))

    def _stack_global(self, _: Any) -> None:
        module, name = self._pop(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise UnsafePickleError("it names a class by something that is not text")
        self._stack.append(Named(module, name))

    def _reduce(self, _: Any) -> None:
        called, arguments = self._pop(2)
        self._make(called, arguments)

    def _new_with_keywords(self, _: Any) -> None:
        called, arguments, _keywords = self._pop(3)
        self._make(called, arguments)

    def _instance(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        arguments = tuple(self._to_mark())
        self._make(Named(module, name), arguments)

    def _object(self, _: Any) -> None:
        called, *arguments = self._to_mark()
        self._make(called, tuple(arguments))

    def _make(self, called: Any, arguments: Any) -> None:
        arguments = arguments if isinstance(arguments, tuple) else (arguments,)
        made = self._rebuild(called, arguments) if isinstance(called, Named) else None
        self._stack.append(Inert(called, arguments) if made is None else made)

    def _build(self, _: Any) -> None:
        (state,) = self._pop(1)
        if isinstance(self._stack[-1], Inert):
            self._stack[-1].state = state

    def _persist(self, argument: Any) -> None:
        self._stack.append(self._persistent(argument))

    def _persist_binary(self, _: Any) -> None:
        (identifier,) = self._pop(1)
        self._stack.append(self._persistent(identifier))


def _hashable(key: Any) -> Any:
    """A key that costs little to hash: nested tuples can take exponential time."""
    if isinstance(key, _PLAIN):
        return key
    if isinstance(key, Named):
        return str(key)
    if isinstance(key, tuple) and len(key) <= _KEY_LENGTH:
        return tuple(k if isinstance(k, _PLAIN) else f"<{type(k).__name__}>" for k in key)
    return f"<{type(key).__name__} {id(key)}>"


_LITERALS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
    | {"BYTEARRAY8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_DICT": dict,
}
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_HANDLERS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine._mark,
    "POP": Machine._drop,
    "POP_MARK": Machine._drop_to_mark,
    "DUP": Machine._duplicate,
    "TUPLE": Machine._tuple_to_mark,
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "LIST": Machine._list,
    "DICT": Machine._dict,
    "APPEND": Machine._append,
    "APPENDS": Machine._appends,
    "ADDITEMS": Machine._appends,
    "FROZENSET": Machine._list,
    "SETITEM": Machine._set_item,
    "SETITEMS": Machine._set_items,
    "GLOBAL": Machine._global,
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._reduce,
    "NEWOBJ_EX": Machine._new_with_keywords,
    "INST": Machine._instance,
    "OBJ": Machine._object,
    "BUILD": Machine._build,
    "PERSID": Machine._persist,
    "BINPERSID": Machine._persist_binary,
}
