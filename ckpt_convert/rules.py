"""Weight tables as data, applied both ways: foreign checkpoint <-> flat jaxrank parameters.

A table is a list of rules `our path <-> their name (transform)`. A name with `{layer}` stands for
one tensor a layer, stacked on a leading axis of our parameter. Importing reads the table from
right to left, exporting from left to right; there is no second table to disagree with the first.

Importing is strict: every parameter is filled exactly once and every tensor is used, or named in
the table as one that is knowingly ignored. What does not fit is collected and raised as one error.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ckpt_convert.name_lists import by_reason, describe, fold
from jaxrank.errors import InputError

Shape = tuple[int, ...]

_LAYER = "{layer}"
_STRIP = 32  # rows of 32 float32 fill two cache lines of each row of the transposed matrix


@dataclass(frozen=True)
class Transform:
    """How one foreign tensor becomes ours and back; shapes go back without any data."""

    name: str
    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]
    shape_to_theirs: Callable[[Shape], Shape]


IDENTITY = Transform("identity", lambda x: x, lambda x: x, lambda shape: shape)
TRANSPOSE = Transform("transpose", np.transpose, np.transpose, lambda shape: shape[::-1])
"""PyTorch keeps linear weights as (out, in), we as (in, out)."""
SQUEEZE_CONV = Transform(
    "squeeze",
    lambda x: np.squeeze(x, axis=1),
    lambda x: np.expand_dims(x, axis=1),
    lambda shape: (shape[0], 1, *shape[1:]),
)
"""PyTorch keeps a depthwise convolution as (D, 1, W), we as (D, W)."""


@dataclass(frozen=True)
class Rule:
    """One parameter: our path, their canonical name, and the transform between the two.

    Attributes:
        first_layer: where `{layer}` starts; a parameter that layer 0 lacks starts at 1.
    """

    ours: str
    theirs: str
    transform: Transform = IDENTITY
    first_layer: int = 0

    @property
    def is_stacked(self) -> bool:
        """Whether our parameter holds all layers."""
        return _LAYER in self.theirs


def linear_rules(ours: str, theirs: str) -> tuple[Rule, Rule]:
    """A torch.nn.Linear; one without bias lacks our parameter, and its rule is passed over."""
    kernel = Rule(f"{ours}.kernel", f"{theirs}.weight", TRANSPOSE)
    return kernel, Rule(f"{ours}.bias", f"{theirs}.bias")


def norm_rules(ours: str, theirs: str) -> tuple[Rule, Rule]:
    """A normalisation with a weight and, where it has one, a bias."""
    return Rule(f"{ours}.weight", f"{theirs}.weight"), Rule(f"{ours}.bias", f"{theirs}.bias")


@dataclass(frozen=True)
class WeightTable:
    """All rules of one architecture with one head.

    Attributes:
        rules: the parameters.
        renames: (pattern, replacement) pairs for `re.sub` that turn the other spellings of a name
            into the one that the rules use: a missing or added prefix, names of older releases.
        ignored: (pattern, why) of tensors that may be in a file and are not needed.
        may_start_fresh: prefixes of our paths; if a file holds nothing at all below one of them,
            those parameters are left out instead of being reported as missing.
        tied: (alias, canonical name) of tensors that are one and the same in the model. Files hold
            one of them or both; both must be equal to the bit. Only the canonical one is exported.
    """

    rules: tuple[Rule, ...]
    renames: tuple[tuple[str, str], ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    may_start_fresh: tuple[str, ...] = ()
    tied: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Imported:
    """What a file gave: parameters, those left to start fresh, what was ignored and why."""

    parameters: dict[str, np.ndarray]
    missing: tuple[str, ...]
    ignored: tuple[str, ...]


def import_weights(
    table: WeightTable,
    shapes: Mapping[str, Shape],
    read: Callable[[str], np.ndarray],
    *,
    wanted: Mapping[str, Shape],
    where: str,
) -> Imported:
    """Fill the `wanted` parameters from a checkpoint.

    Names and shapes are compared before the first tensor is read.

    Args:
        shapes: shape of every tensor in the checkpoint, by its own name.
        read: gives the tensor of that name as a new float32 array.
        wanted: shape of every parameter, by our flat path.
        where: the checkpoint, for the error.

    Raises:
        InputError: one line that counts and names the missing, unused and twice-filled tensors
            and the wrong shapes; or names two tied tensors that differ.
    """
    sources, twice = _canonical_names(table, shapes)
    tied = _merge_tied(table, sources)
    ignored = _ignored(table, sources)
    unused = {name: source for name, source in sources.items() if name not in ignored}
    problems: dict[str, list[str]] = {"filled twice": twice, "missing": [], "wrong shape": []}
    plan: dict[str, tuple[Rule, list[str]]] = {}
    fresh = _fresh_prefixes(table, unused, wanted)
    for rule in _covering(table, wanted):
        if rule.ours.startswith(fresh):
            continue
        needed, shape = _expected(rule, wanted[rule.ours])
        for name in needed:
            if name not in unused:
                problems["missing"].append(name)
            elif shapes[unused[name]] != shape:
                problems["wrong shape"].append(f"{name} is {shapes[unused[name]]}, needs {shape}")
        plan[rule.ours] = rule, [unused.pop(name) for name in needed if name in unused]
    problems["not used"] = sorted(unused.values())
    if any(problems.values()):
        raise InputError(f"{where}: {describe(problems)}; the weights must fit config.json")
    _check_tied(tied, shapes, read, where)
    return Imported(
        parameters={
            path: _read_parameter(rule, names, read, wanted[path])
            for path, (rule, names) in plan.items()
        },
        missing=tuple(path for path in wanted if path.startswith(fresh)),
        ignored=tuple(sorted(f"{why}: {fold(names)}" for why, names in by_reason(ignored).items())),
    )


def export_weights(
    table: WeightTable, parameters: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Our flat parameters as tensors under the checkpoint's names; the inverse of importing."""
    tensors: dict[str, np.ndarray] = {}
    for rule in _covering(table, parameters):
        value = np.asarray(parameters[rule.ours])
        layers = enumerate(value, rule.first_layer) if rule.is_stacked else [("", value)]
        for layer, array in layers:
            name = rule.theirs.replace(_LAYER, str(layer))
            tensors[name] = np.ascontiguousarray(rule.transform.to_theirs(array))
    return tensors


def canonical_name(table: WeightTable, name: str) -> str:
    """The spelling of a tensor's name that the rules use."""
    for pattern, replacement in table.renames:
        name = re.sub(pattern, replacement, name)
    return name


def _canonical_names(table: WeightTable, names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Canonical name -> name in the file, and the canonical names that two tensors claim."""
    sources: dict[str, str] = {}
    twice = []
    for name in names:
        canonical = canonical_name(table, name)
        if canonical in sources:
            twice.append(f"{canonical} by {sources[canonical]} and {name}")
        sources[canonical] = name
    return sources, twice


def _merge_tied(table: WeightTable, sources: dict[str, str]) -> list[tuple[str, str]]:
    """Take the aliases out of `sources`; (name, name) in the file of those that must be equal."""
    pairs = []
    for alias, canonical in table.tied:
        if alias in sources:
            name = sources.pop(alias)
            if sources.setdefault(canonical, name) != name:
                pairs.append((name, sources[canonical]))
    return pairs


def _check_tied(
    pairs: Iterable[tuple[str, str]],
    shapes: Mapping[str, Shape],
    read: Callable[[str], np.ndarray],
    where: str,
) -> None:
    """Two tensors of one parameter that differ would leave open which of them the model used."""
    for alias, canonical in pairs:
        if shapes[alias] != shapes[canonical] or not np.array_equal(
            read(alias).view(np.uint32), read(canonical).view(np.uint32)
        ):
            raise InputError(
                f"{where}: {alias} and {canonical} differ; they are one tensor in this model, so "
                "delete the one that was not trained"
            )


def _ignored(table: WeightTable, names: Iterable[str]) -> dict[str, str]:
    """Canonical name -> why it is ignored."""
    return {
        name: why for name in names for pattern, why in table.ignored if re.fullmatch(pattern, name)
    }


def _covering(table: WeightTable, wanted: Mapping[str, object]) -> tuple[Rule, ...]:
    """The rules of the wanted parameters (biases may be switched off), one for each of them."""
    rules = tuple(rule for rule in table.rules if rule.ours in wanted)
    paths = [rule.ours for rule in rules]
    assert sorted(paths) == sorted(wanted), f"table and module differ: {set(wanted) - set(paths)}"
    return rules


def _fresh_prefixes(
    table: WeightTable, sources: Mapping[str, str], wanted: Mapping[str, Shape]
) -> tuple[str, ...]:
    """Those of `may_start_fresh` below which the file holds nothing."""

    def is_absent(prefix: str) -> bool:
        rules = [rule for rule in _covering(table, wanted) if rule.ours.startswith(prefix)]
        return not any(n in sources for r in rules for n in _expected(r, wanted[r.ours])[0])

    return tuple(prefix for prefix in table.may_start_fresh if is_absent(prefix))


def _expected(rule: Rule, shape: Shape) -> tuple[list[str], Shape]:
    """The tensors that fill a parameter of this shape, and the shape that each of them has."""
    if not rule.is_stacked:
        return [rule.theirs], rule.transform.shape_to_theirs(shape)
    layers = range(rule.first_layer, rule.first_layer + shape[0])
    names = [rule.theirs.replace(_LAYER, str(layer)) for layer in layers]
    return names, rule.transform.shape_to_theirs(shape[1:])


def _read_parameter(
    rule: Rule, names: list[str], read: Callable[[str], np.ndarray], shape: Shape
) -> np.ndarray:
    """One parameter as a contiguous float32 array; layers are written into place one by one."""
    if rule.transform is IDENTITY and not rule.is_stacked:
        return read(*names)
    parameter = np.empty(shape, np.float32)
    slots = parameter if rule.is_stacked else [parameter]
    for slot, name in zip(slots, names, strict=True):
        _copy(rule.transform.to_ours(read(name)), slot)
    return parameter


def _copy(source: np.ndarray, target: np.ndarray) -> None:
    """Fill `target`; a transposed matrix strip by strip, in a quarter of the time."""
    if source.ndim != 2 or source.flags.c_contiguous:
        target[...] = source
        return
    for start in range(0, source.shape[1], _STRIP):
        target[:, start : start + _STRIP] = source[:, start : start + _STRIP]
