"""The architectures by name."""

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from jaxrank.errors import InputError
from jaxrank.models import bart, bert, gpt_neox, llama, mamba, mamba2, modernbert, opt, t5
from jaxrank.models.backbone import Family
from jaxrank.models.states import StateArray

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            bart.FAMILY,
            bert.ELECTRA,
            bert.FAMILY,
            bert.ROBERTA,
            bert.XLM_ROBERTA,
            gpt_neox.FAMILY,
            llama.FAMILY,
            mamba.FAMILY,
            mamba2.FAMILY,
            modernbert.FAMILY,
            opt.FAMILY,
            t5.FAMILY,
        )
    }
)


def get_family(name: str) -> Family:
    """The family of that name; InputError naming the nearest one if there is none."""
    if name in FAMILIES:
        return FAMILIES[name]
    nearest = get_close_matches(name, FAMILIES, n=1, cutoff=0.75)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise InputError(f"family: {name!r} is unknown; known are {', '.join(FAMILIES)}{hint}")


def state_arrays(family: str, backbone: Any) -> tuple[StateArray, ...]:
    """What the state of a text is made of in a backbone of that configuration.

    Raises:
        InputError: the family has no such state, with the reason and those that have.
    """
    arrays = get_family(family).state_arrays
    if arrays is None:
        able = ", ".join(name for name, other in FAMILIES.items() if other.state_arrays)
        raise InputError(
            f"family: {family!r} has no document states: its encoder reads query and document at "
            "once, and every token sees those after it, so what it makes of a document depends on "
            f"the query; families that read from left to right have them: {able}"
        )
    return arrays(backbone)
