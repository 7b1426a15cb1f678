import pytest

from jaxrank.errors import InputError
from jaxrank.text.templates import (
    TEMPLATES,
    WORDINGS,
    Template,
    TextConfig,
    get_template,
    resolve_template,
)


def test_every_template_but_pair_has_both_fields_once():
    for template in TEMPLATES.values():
        text = "".join(template.segments)
        assert template.is_pair or (text.count("{query}"), text.count("{document}")) == (1, 1)


@pytest.mark.parametrize("group", WORDINGS)
def test_a_group_of_wordings_becomes_the_one_of_the_model(group: str):
    for wording, name in WORDINGS[group].items():
        assert resolve_template(group, wording=wording) == name
        template = get_template(name)
        assert (template.segments[0] == "[CLS]") == (wording == "encoder")
        assert (template.segments[-1] == "[EOS]") >= (wording != "encoder")


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_name_of_one_template_stays_what_it_is(name: str):
    assert resolve_template(name, wording="encoder") == get_template(name).name == name


def test_a_group_of_wordings_is_no_template_without_a_model():
    message = "'paper' is worded by the kind of model.* paper-encoder, paper-decoder, paper-enc"
    with pytest.raises(InputError, match=message):
        get_template("paper")


def test_a_wording_that_a_paper_does_not_have_is_refused():
    with pytest.raises(InputError, match="'ssm-rerankers' has no wording for an encoder-decoder"):
        resolve_template("ssm-rerankers", wording="encoder-decoder")


def test_an_unknown_template_is_refused_with_the_nearest_name():
    for ask in (get_template, lambda name: resolve_template(name, wording="decoder")):
        with pytest.raises(InputError, match="'papr'; did you mean 'paper'"):
            ask("papr")


def test_a_template_without_a_field_is_our_own_mistake():
    with pytest.raises(ValueError, match="needs each field once"):
        Template("broken", ("query: {query}",))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 0}, "max_length: got 0"),
        ({"template": "paper-encoder", "query_length": 512}, "below max_length 512"),
        ({"query_length": 30}, "leave it out"),
    ],
)
def test_budgets_that_cannot_be_are_refused(settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        TextConfig(**settings)
