import json
from dataclasses import replace

import pytest

from jaxrank.errors import InputError
from jaxrank.ranking.document_states.identity import StateIdentity, identity_from_json
from tests.ranking.document_states.small_states import FIXED, IDENTITY

OTHERS = {
    "family": (replace(IDENTITY, family="mamba2"), "family 'mamba', the model has 'mamba2'"),
    "template": (
        replace(IDENTITY, template="plain"),
        "template 'document-first', the model has 'plain'",
    ),
    "budget": (
        replace(IDENTITY, document_budget=480),
        "document budget 9 tokens, the model has 480",
    ),
    "weights": (
        replace(IDENTITY, weights="c" * 64),
        "weights aaaaaaaaaaaa, the model has cccccccccccc",
    ),
    "tokenizer": (
        replace(IDENTITY, tokenizer="d" * 64),
        "tokenizer bbbbbbbbbbbb, the model has dddddddddddd",
    ),
    "arrays": (
        replace(IDENTITY, arrays=FIXED),
        "arrays [convolution (2, 3, 5) not in eight bits, recurrence (2, 5, 4), "
        "keys (2, tokens, 2, 3), values (2, tokens, 2, 3)], the model has "
        "[convolution (2, 3, 5) not in eight bits, recurrence (2, 5, 4)]",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_one_difference_is_named_with_both_values_and_no_other(name: str):
    other, named = OTHERS[name]
    with pytest.raises(InputError) as refusal:
        IDENTITY.check_same(other, where="states/of/mine")
    what, mend = "model", "use that model"
    if name == "budget":
        what = "max_length or query_length"
        mend = "give the same (or leave --max_length out)"
    assert str(refusal.value) == (
        f"states/of/mine: its states were made for another {what}: {named}; {mend}, or encode the "
        "documents into another folder"
    )


def test_all_differences_are_named_at_once():
    other = StateIdentity("opt", "c" * 64, "d" * 64, "plain", 480, FIXED)
    with pytest.raises(InputError) as refusal:
        IDENTITY.check_same(other, where="states")
    for _, named in OTHERS.values():
        assert named.split(",")[0] in str(refusal.value)


def test_an_identity_is_the_same_as_itself_after_a_file():
    again = identity_from_json(json.loads(json.dumps(IDENTITY.as_json())))
    assert again == IDENTITY
    again.check_same(IDENTITY, where="states")
