"""Memory of a computation by its shapes: run on the meta device while every allocation is counted.

Nothing is worked out twice: what an operator answers to tensors of some shapes is remembered for the process, and a
whole function may be (``Live.remembered``).
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device, torch.memory_format, torch.layout)
"""What operators are given beside tensors."""


@dataclass(frozen=True)
class Need:
    """Bytes on a device of what takes a turn there."""

    weights: int
    work: int  # what it is given and what it computes, at the peak

    @property
    def total(self) -> int:
        return self.weights + self.work


class Live(TorchDispatchMode):
    """Bytes of the tensors that are alive, and their peak; ``known`` tensors count nothing."""

    def __init__(self, known: list[Tensor]):
        super().__init__()
        self.now = self.peak = self._made = 0
        self._storages: dict[int, tuple[int, int]] = {}  # by their address: a number of their own, bytes
        for tensor in known:
            self._add(tensor.untyped_storage()._cdata, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = answer(func, args, kwargs or {})
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage._cdata not in self._storages:
                self._add(storage._cdata, storage.nbytes())
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, storage._cdata)
        return result

    def remembered(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which is not run again for tensors of the same shapes: it allocates, frees and answers as it
        did. Without gradients; it may change what it is given, lists among it, and nothing else."""
        calls: dict[Any, _Call] = {}

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            assert not torch.is_grad_enabled(), "what is kept for a backward pass is not remembered"
            given = (args, kwargs)
            before = self._described(given, {})
            if before is None:
                return function(*args, **kwargs)
            key, numbers, start = before.key, before.numbers, self.now
            if found := calls.get(key):
                peak = max(self.peak, start + found.extra)
                result, *changed = found.after.made(before.tensors)
                del before
                _restore(given, changed)
                del changed
                assert self.now - start == found.more, "a call that was remembered has left something else behind"
                self.peak = peak
                return result
            del before  # it would keep alive what the function drops
            outer, self.peak = self.peak, start
            result = function(*args, **kwargs)
            after = self._described((result, *given), numbers)
            if after is not None:
                calls[key] = _Call(self.peak - start, self.now - start, after.forgotten())
            self.peak = max(outer, self.peak)
            return result

        return call

    def _described(self, values: Any, given: dict[int, int]) -> "_Described | None":
        """None where there is anything that cannot be told by its shape.

        Args:
            given: numbers of storages that were there before, and their places among those.
        """
        leaves, spec = tree_flatten(values)
        numbers = dict(given)
        tensors: dict[_Leaf, Tensor] = {}
        found: list[Any] = []
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                number = self._storages.get(storage._cdata, (None, 0))[0]
                if number is None:
                    return None
                place = numbers.setdefault(number, len(numbers))
                one = _Leaf(
                    place,
                    storage.nbytes(),
                    leaf.dtype,
                    tuple(leaf.shape),
                    leaf.stride(),
                    int(leaf.storage_offset()),
                )
                tensors.setdefault(one, leaf)
                found.append(one)
            elif isinstance(leaf, PLAIN):
                found.append((type(leaf), leaf))
            else:
                return None
        return _Described(tuple(found), spec, tensors, numbers)

    def _add(self, address: int, size: int) -> None:
        self._made += 1
        self._storages[address] = self._made, size

    def _free(self, address: int) -> None:
        self.now -= self._storages.pop(address)[1]


@dataclass(frozen=True)
class _Leaf:
    """A tensor by its shape, and the storage it is in."""

    place: int
    size: int  # of the storage, in bytes
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def on(self, storage: Any) -> Tensor:
        empty = torch.empty(0, dtype=self.dtype, device="meta")
        return empty.set_(storage, self.offset, self.shape, self.stride)


@dataclass(frozen=True)
class _Described:
    leaves: tuple[Any, ...]
    spec: TreeSpec
    tensors: dict[_Leaf, Tensor]
    numbers: dict[int, int]  # of storages, and their places

    @property
    def key(self) -> Any:
        return self.leaves, self.spec

    def forgotten(self) -> "_Described":
        """Without the tensors."""
        return _Described(self.leaves, self.spec, {}, {})

    def made(self, given: dict[_Leaf, Tensor]) -> Any:
        """The values, of the tensors that are given and of new ones."""
        storages = {leaf.place: tensor.untyped_storage() for leaf, tensor in given.items()}
        values, made = [], dict(given)
        for leaf in self.leaves:
            if not isinstance(leaf, _Leaf):
                values.append(leaf[1])
                continue
            if leaf not in made:
                if leaf.place not in storages:
                    whole = torch.empty(leaf.size, dtype=torch.uint8, device="meta")
                    storages[leaf.place] = whole.untyped_storage()
                made[leaf] = leaf.on(storages[leaf.place])
            values.append(made[leaf])
        return tree_unflatten(values, self.spec)


@dataclass(frozen=True)
class _Call:
    extra: int  # bytes at its peak
    more: int  # after it
    after: _Described  # of its answer and of what it was given


def _restore(old: Any, new: Any) -> None:
    """Have lists and dictionaries hold what the same ones held after the call."""
    if isinstance(old, tuple):
        for one, other in zip(old, new, strict=True):
            _restore(one, other)
    elif isinstance(old, list):
        old[:] = new
    elif isinstance(old, dict):
        for name in [name for name in old if name not in new]:
            del old[name]
        for name, value in new.items():
            if isinstance(old.get(name), list | dict | tuple):
                _restore(old[name], value)
            else:
                old[name] = value


@dataclass(frozen=True)
class _Answer:
    """Of an operator, by its shapes."""

    tensors: tuple[tuple[tuple[int, ...], tuple[int, ...], torch.dtype], ...]
    kind: type | None  # of what holds them

    def made(self) -> Any:
        tensors = [
            torch.empty_strided(shape, stride, dtype=dtype, device="meta") for shape, stride, dtype in self.tensors
        ]
        return tensors[0] if self.kind is None else self.kind(tensors)


_ANSWERS: dict[Any, _Answer | None] = {}


def answer(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operator answers on the meta device. Much of what works out shapes there is Python, and slow."""
    if not _pure(func):
        return func(*args, **kwargs)
    try:
        key = (func, _key(args), _key(tuple(kwargs.items())))
        found = _ANSWERS[key]
    except _Unknown:
        return func(*args, **kwargs)
    except KeyError:
        result = func(*args, **kwargs)
        _ANSWERS[key] = _noted(result, (args, kwargs))
        return result
    return func(*args, **kwargs) if found is None else found.made()


class _Unknown(Exception):
    """It cannot be told by its shape."""


@cache
def _pure(func: Any) -> bool:
    """Neither views nor changes what it is given, as it says."""
    schema = func._schema
    return not any(one.alias_info for one in (*schema.arguments, *schema.returns)) and bool(schema.returns)


def _key(value: Any) -> Any:
    if isinstance(value, Tensor):
        if value.device.type != "meta":
            raise _Unknown
        return value.shape, value.stride(), value.dtype
    if isinstance(value, tuple | list):
        return type(value), *map(_key, value)
    if isinstance(value, PLAIN):
        return type(value), value
    raise _Unknown


def _noted(result: Any, given: Any) -> _Answer | None:
    """None for what ``_Answer`` cannot make: tensors in storages of others or larger than they are."""
    kind = type(result) if isinstance(result, tuple | list) else None
    tensors = list(result) if kind else [result]
    if kind not in (None, tuple, list) or not all(isinstance(one, Tensor) for one in tensors):
        return None
    note = _Answer(tuple((tuple(one.shape), one.stride(), one.dtype) for one in tensors), kind)
    like = note.made() if kind else [note.made()]
    taken = {one.untyped_storage()._cdata for one in tree_flatten(given)[0] if isinstance(one, Tensor)}
    for one, other in zip(tensors, like, strict=True):
        storage = one.untyped_storage()
        same = (one.device.type, one.storage_offset(), storage.nbytes()) == (
            "meta",
            0,
            other.untyped_storage().nbytes(),
        )
        if not same or storage._cdata in taken or type(one) is not Tensor:
            return None
        taken.add(storage._cdata)
    return note
