"""Other libraries' code as a side of a comparison: a plug-in module, so that none is needed here.

Such a module has a dictionary RIVALS: name -> function from a Case to a Rival, or to None where the
case is not its business. It takes its inputs from `make_inputs`, `make_hidden` and `make_ids` with
the case's own keys, so both sides compute on the same.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from jaxrank.benchmarking.cases import Case
from jaxrank.benchmarking.timing import Side
from jaxrank.errors import InputError


@runtime_checkable
class Rival(Side, Protocol):
    """Another library's side."""

    parameters: int | None
    """Numbers in its network, which must be as many as in ours; None for an operation."""


class RivalMissingError(Exception):
    """A rival cannot run here; the message says why, in one line."""


MakeRival = Callable[[Case], Rival | None]


def load_rivals(module: str, *, only: Sequence[str] = ()) -> Mapping[str, MakeRival]:
    """The rivals of a plug-in, by name.

    Args:
        module: its name, as Python imports it.
        only: those that are wanted; all if empty.

    Raises:
        InputError: there is no such module, it has no RIVALS, or not one of that name.
    """
    try:
        rivals = importlib.import_module(module).RIVALS
    except ModuleNotFoundError as error:
        raise InputError(
            f"--against: {module} cannot be imported ({error}); a module of the Python path with "
            "a dictionary RIVALS is needed"
        ) from None
    except AttributeError:
        raise InputError(f"--against: {module} has no dictionary RIVALS") from None
    unknown = [name for name in only if name not in rivals]
    if unknown:
        raise InputError(
            f"--rivals: {module} has no {unknown[0]!r}; known are {', '.join(sorted(rivals))}"
        )
    return {name: make for name, make in rivals.items() if not only or name in only}
