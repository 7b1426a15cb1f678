"""What a compiled GPU program reads and writes: its kernels, one by one, from XLA's optimised text.

A count of bytes that must pass between memory and chip if nothing stays in a cache: operands and
results of every kernel, loops multiplied out. A slice of an array counts as the slice, and an
update in place as the update.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8}
_BYTES |= {f"{sign}{bits}": bits // 8 for sign in "su" for bits in (8, 16, 32, 64)}
_ARRAY = re.compile(r"\b(" + "|".join(_BYTES) + r")\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_CALLED = re.compile(r"(?:to_apply|calls|body)=%?([\w.\-]+)")
_TIMES = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_NO_KERNEL = {
    "parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all", "opt-barrier",
    "copy-done", "fusion-done", "async-done", "async-update",
}  # fmt: skip


class Kernel(NamedTuple):
    """A kernel of the program, or a copy."""

    name: str
    kind: str
    """XLA's operation, and what a custom call calls."""
    read: int
    """Bytes of one run."""
    written: int
    times: int
    """How often it runs."""
    source: str
    """The JAX operation that it stands for, or one of several."""

    @property
    def traffic(self) -> int:
        """Bytes of all runs."""
        return (self.read + self.written) * self.times


class _Instruction(NamedTuple):
    name: str
    shape: str
    operation: str
    rest: str
    is_root: bool

    @property
    def operands(self) -> list[str]:
        depth = 1
        for place, character in enumerate(self.rest):
            depth += (character == "(") - (character == ")")
            if depth == 0:
                return re.findall(r"%([\w.\-]+)", self.rest[:place])
        return []

    @property
    def called(self) -> str | None:
        match = _CALLED.search(self.rest)
        return None if match is None else match[1]


def list_kernels(text: str) -> list[Kernel]:
    """The kernels of `compiled.as_text()` in their order; both sides of a condition are there."""
    computations: dict[str, list[_Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            current = match[2]
            computations[current] = []
            entry = current if match[1] else entry
        elif current and (match := _INSTRUCTION.match(re.sub(r"/\*index=\d+\*/", "", line))):
            computations[current].append(_Instruction(*match.groups()[1:], is_root=bool(match[1])))
    return list(_walk(computations, entry, 1))


def _walk(
    computations: dict[str, list[_Instruction]], current: str, times: int
) -> Iterator[Kernel]:
    shapes = {each.name: each.shape for each in computations[current]}
    for each in computations[current]:
        if each.operation in _NO_KERNEL:
            continue
        if each.operation == "while":
            trips = _TIMES.search(each.rest)
            assert each.called is not None
            yield from _walk(computations, each.called, times * int(trips[1]) if trips else times)
        elif each.operation in ("call", "async-start") and each.called in computations:
            yield from _walk(computations, each.called, times)
        elif each.operation == "conditional":
            listed = re.search(r"branch_computations=\{([^}]*)\}", each.rest)
            single = re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", each.rest)
            for branch in re.findall(r"[\w.\-]+", listed[1]) if listed else single:
                yield from _walk(computations, branch, times)
        else:
            yield _kernel(each, shapes, computations, times)


def _kernel(
    each: _Instruction,
    shapes: dict[str, str],
    computations: dict[str, list[_Instruction]],
    times: int,
) -> Kernel:
    operands = [_size(shapes.get(name, "")) for name in each.operands]
    read, written = sum(operands), _size(each.shape)
    if each.operation in ("fusion", "fusion-start") and each.called in computations:
        read, written = _fusion_traffic(computations[each.called])
    elif each.operation == "dynamic-slice":
        read = written
    elif each.operation == "dynamic-update-slice":
        read = written = operands[1]
    elif each.operation == "copy-start":
        written = read
    target = re.search(r'custom_call_target="([^"]*)"', each.rest)
    source = re.search(r'op_name="([^"]*)"', each.rest)
    kind = each.operation if target is None else target[1]
    return Kernel(each.name, kind, read, written, times, "" if source is None else source[1])


def _fusion_traffic(body: list[_Instruction]) -> tuple[int, int]:
    """Bytes that a fused kernel reads and writes."""
    by_name = {each.name: each for each in body}
    users: dict[str, list[tuple[_Instruction, int]]] = {}
    for each in body:
        for place, operand in enumerate(each.operands):
            users.setdefault(operand, []).append((each, place))

    def read(name: str) -> int:
        whole, total = _size(by_name[name].shape), 0
        for user, place in users.get(name, []):
            if user.operation in ("bitcast", "reshape"):
                total += read(user.name)
            elif place == 0 and user.operation in ("dynamic-slice", "slice", "gather"):
                total += _size(user.shape)
            elif not (place == 0 and user.operation == "dynamic-update-slice"):
                return whole
        return min(total, whole)

    def written(each: _Instruction) -> int:
        if each.operation == "tuple":
            return sum(written(by_name[name]) for name in each.operands)
        if each.operation == "bitcast" and each.operands[0] in by_name:
            inner = by_name[each.operands[0]]
            return (
                written(inner) if inner.operation == "dynamic-update-slice" else _size(each.shape)
            )
        if each.operation == "dynamic-update-slice":
            return _size(by_name[each.operands[1]].shape)
        return _size(each.shape)

    parameters = [each.name for each in body if each.operation == "parameter"]
    (root,) = (each for each in body if each.is_root)
    return sum(map(read, parameters)), written(root)


def _size(shape: str) -> int:
    """Bytes of an array, or of all arrays of a tuple."""
    return sum(
        _BYTES[dtype] * math.prod(int(length) for length in lengths.split(",") if length)
        for dtype, lengths in _ARRAY.findall(shape)
    )
