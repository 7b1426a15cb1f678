"""Many names of tensors in one line that a person can read."""

import re
from collections.abc import Iterable, Mapping, Sequence

_MOST = 6
_LAYER_NUMBER = re.compile(r"(?:(?<=\.)|^)(?:0|[1-9]\d{0,8})(?=\.)")


def describe(problems: Mapping[str, Sequence[str]]) -> str:
    """Each kind of problem with how many names it has and the first of them, none left out."""
    return "; ".join(
        f"{len(names)} {what}: {fold(names)}" for what, names in problems.items() if names
    )


def fold(names: Iterable[str]) -> str:
    """Names that differ by one layer number written once, `a.{0..11}.b`; at most six of them.

    What is left out is counted in names as they came: `and 40 more`.
    """
    layers: dict[tuple[str, str], list[str]] = {}
    for name in names:
        match = _LAYER_NUMBER.search(name)
        start, end = match.span() if match else (len(name), len(name))
        layers.setdefault((name[:start], name[end:]), []).append(name[start:end])
    written = [
        before + (numbers[0] if len(numbers) == 1 else f"{{{_ranges(numbers)}}}") + after
        for (before, after), numbers in layers.items()
    ]
    left_out = sum(map(len, list(layers.values())[_MOST:]))
    more = f" and {left_out} more" if left_out else ""
    separator = "; " if any(", " in name for name in written[:_MOST]) else ", "
    return separator.join(written[:_MOST]) + more


def by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Name -> why, turned round: why -> names."""
    names: dict[str, list[str]] = {}
    for name, why in reasons.items():
        names.setdefault(why, []).append(name)
    return names


def _ranges(numbers: Iterable[str]) -> str:
    """Numbers in order, three and more that follow each other as `2..9`."""
    runs: list[list[int]] = []
    for number in sorted({int(number) for number in numbers}):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [f"{run[0]}..{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs]
    more = f",... ({len(parts) - _MOST} more)" if len(parts) > _MOST else ""
    return ",".join(parts[:_MOST]) + more
