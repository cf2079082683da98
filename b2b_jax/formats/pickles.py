"""Pickles as data: a machine that builds containers, numbers and text, and calls nothing that its caller did not name.

Python's own unpickler trusts its input: an index can make it allocate gigabytes, a nested tuple overflow its stack, and
every global is a door to code. This one reads the same opcodes (PEP 307, 3154; the table of `pickletools`) with a dict
for a memo, keys that are plain values, and bounds on how many steps and containers a file may ask for.
"""

import pickletools
from collections.abc import Callable, Iterator
from typing import Any

from b2b_jax.formats.opening import Problem, Window

MOST_STEPS = 5_000_000  # a history of a million losses is read, in about 5 s
MOST_CONTAINERS = 500_000  # a byte of the file can ask for a container of 200; 15,000 tensors need 150,000
WIDEST = 16  # bytes of an integer; PyTorch's magic number has 10
PLAIN = (str, int, float, bytes, type(None))


class Function:
    """Something that a pickle may call: by `REDUCE`, with a tuple of arguments, which it checks itself."""

    def __init__(self, call: Callable[..., Any]):
        self.call = call


class Blank:
    """What a pickle makes first and fills in later: `build(state)` gives the value that takes its place."""

    def __init__(self, build: Callable[[Any], Any]):
        self.build = build
        self.places: list[int] = []  # in the memo


class Dict(dict):
    """Stands for OrderedDict. Attributes that the file hangs on it (PyTorch's `_metadata`) are forgotten."""


def load(file: Window, find: Callable[[str, str], Any], persistent: Callable[[Any], Any]) -> Any:
    """The object of the pickle that begins where `file` stands; the file then stands behind it.

    Args:
      file: the bytes.
      find: gives what stands for a global (module, name): a Function, or plain data; Problem for all that is refused.
      persistent: gives what stands for a persistent id; Problem if it is none.

    Raises:
      Problem: the pickle is damaged, asks for what is refused, or for more than any checkpoint needs.
    """
    machine = _Machine(find, persistent)
    try:
        for steps, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if opcode.name == "STOP":
                return machine.stack.pop()
            if steps > MOST_STEPS:
                raise Problem(f"refused: it takes more than {MOST_STEPS:,} steps to read, a state dict takes few")
            machine.step(opcode.name, argument)
    except Problem:
        raise
    except Exception as error:  # damaged bytes can raise anything
        raise Problem(
            f"not a PyTorch checkpoint, or a damaged one ({type(error).__name__}: {str(error)[:80]})"
        ) from error
    raise Problem("truncated: the pickle has no end")


def _key(value: Any) -> Any:
    """The value, if it may be a key: hashing nested tuples can take for ever, or overflow the stack."""
    if not isinstance(value, PLAIN):
        raise Problem(f"refused: a {type(value).__name__} is the key of a dictionary, wanted text or a number")
    return value


def _pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    return ((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))


class _Machine:
    """The stack, the marks and the memo of a pickle."""

    def __init__(self, find: Callable[[str, str], Any], persistent: Callable[[Any], Any]):
        self.stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._containers = 0
        self._find, self._persistent = find, persistent

    def step(self, name: str, argument: Any) -> None:
        """One opcode."""
        if name in CONTAINERS:
            self._containers += 1
            if self._containers > MOST_CONTAINERS:
                raise Problem(f"refused: it asks for more than {MOST_CONTAINERS:,} containers, a state dict for few")
        if name in CONSTANTS:
            self.stack.append(argument if CONSTANTS[name] is ... else CONSTANTS[name])
        elif name in ACTIONS:
            ACTIONS[name](self, argument)
        elif name not in IGNORED:
            raise Problem(f"refused: it uses the opcode {name}, which no state dict needs")

    def _integer(self, argument: int) -> None:
        if argument.bit_length() > 8 * WIDEST:
            raise Problem(f"refused: an integer of {argument.bit_length():,} bits")
        self.stack.append(argument)

    def _mark(self, _: None) -> None:
        self._marked.append(self.stack)
        self.stack = []

    def _marked_items(self) -> list[Any]:
        items, self.stack = self.stack, self._marked.pop()
        return items

    def _pop(self, _: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._marked_items()

    def _gather(self, kind: Callable[[list[Any]], Any]) -> None:
        items = self._marked_items()
        self.stack.append(kind(items))

    def _tuple(self, size: int) -> None:
        if size > len(self.stack):
            raise Problem("damaged: a tuple of more than there is")
        self.stack[-size:] = [tuple(self.stack[-size:])]

    def _last(self, count: int) -> list[Any]:
        """Takes the last `count` values from the stack, above what they go into."""
        if count >= len(self.stack):
            raise Problem("damaged: it adds more than there is")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise Problem(f"damaged: items for a {type(target).__name__}")
        target.update(_pairs(items))

    def _append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(map(_key, items))
        elif isinstance(target, list):
            target.extend(items)
        else:
            raise Problem(f"damaged: items for a {type(target).__name__}")

    def _dict(self, _: None) -> None:
        items = self._marked_items()
        self.stack.append(dict(_pairs(items)))

    def _frozenset(self, _: None) -> None:
        items = self._marked_items()
        self.stack.append(set(map(_key, items)))

    def _put(self, place: int | None) -> None:
        value, place = self.stack[-1], len(self._memo) if place is None else place
        self._memo[place] = value
        if isinstance(value, Blank):
            value.places.append(place)

    def _global(self, argument: str) -> None:
        self.stack.append(self._find(*argument.split(" ", 1)))

    def _instance(self, argument: str) -> None:
        self._find(*argument.split(" ", 1))  # which refuses by name nearly all that there is
        raise Problem("refused: it uses the opcode INST, which no state dict needs")

    def _stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise Problem("damaged: a global without a name")
        self.stack.append(self._find(module, name))

    def _reduce(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not (isinstance(function, Function) and isinstance(arguments, tuple)):
            raise Problem(f"refused: it calls a {type(function).__name__}")
        self.stack.append(function.call(*arguments))

    def _build(self, _: None) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Blank):
            self.stack[-1] = target.build(state)
            self._memo |= dict.fromkeys(target.places, self.stack[-1])
        elif not isinstance(target, Dict):
            raise Problem(f"refused: it alters a {type(target).__name__}")

    def _persist(self, argument: str | None) -> None:
        self.stack.append(self._persistent(self.stack.pop() if argument is None else argument))


# Opcode to what it pushes; ... stands for its argument.
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
CONSTANTS |= dict.fromkeys(("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE"), ...)
CONSTANTS |= dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), ...)
CONSTANTS |= dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), ...)
IGNORED = {"PROTO", "FRAME"}
CONTAINERS = {"MARK", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "DICT", "LIST", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
CONTAINERS |= {"FROZENSET", "REDUCE", "NEWOBJ"}

ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_SET": lambda m, _: m.stack.append(set()),
    "MARK": _Machine._mark,
    "POP_MARK": lambda m, _: m._marked_items() and None,
    "POP": _Machine._pop,
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "TUPLE": lambda m, _: m._gather(tuple),
    "LIST": lambda m, _: m._gather(list),
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "DICT": _Machine._dict,
    "FROZENSET": _Machine._frozenset,
    "APPEND": lambda m, _: m._append(m._last(1)),
    "APPENDS": lambda m, _: m._append(m._marked_items()),
    "ADDITEMS": lambda m, _: m._append(m._marked_items()),
    "SETITEM": lambda m, _: m._set(m._last(2)),
    "SETITEMS": lambda m, _: m._set(m._marked_items()),
    "MEMOIZE": _Machine._put,
    "GLOBAL": _Machine._global,
    "INST": _Machine._instance,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "BUILD": _Machine._build,
    "PERSID": _Machine._persist,
    "BINPERSID": _Machine._persist,
}
ACTIONS |= dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _Machine._integer)
ACTIONS |= dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine._put)
ACTIONS |= dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, place: m.stack.append(m._memo[place]))
