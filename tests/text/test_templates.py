import pytest

from jaxrank.errors import InputError
from jaxrank.text.templates import TEMPLATES, WORDINGS, Template, TextConfig, get_template


def test_every_template_but_pair_has_both_fields_once():
    for template in TEMPLATES.values():
        text = "".join(template.segments)
        assert template.is_pair or (text.count("{query}"), text.count("{document}")) == (1, 1)


@pytest.mark.parametrize("name", WORDINGS)
def test_a_name_with_two_wordings_goes_by_the_cls_token(name: str):
    encoder, decoder = get_template(name, has_cls=True), get_template(name, has_cls=False)
    assert encoder.segments[0] == "[CLS]"
    assert decoder.segments[-1] == "[EOS]"


def test_an_unknown_template_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="'papr'; did you mean 'paper'"):
        get_template("papr", has_cls=True)


def test_a_template_without_a_field_is_our_own_mistake():
    with pytest.raises(ValueError, match="needs each field once"):
        Template("broken", ("query: {query}",))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 0}, "max_length: got 0"),
        ({"template": "paper", "query_length": 512}, "below max_length 512"),
        ({"query_length": 30}, "leave it out"),
    ],
)
def test_budgets_that_cannot_be_are_refused(settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        TextConfig(**settings)
