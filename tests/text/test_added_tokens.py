import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from jaxrank.errors import InputError
from jaxrank.text.added_tokens import add_tokens, missing_tokens, vocabulary_size
from jaxrank.text.templates import TextConfig
from jaxrank.text.tokenize import load_tokenizer
from tests.tokenizer_builders import tokenizer_folder

MARKERS = ("[query]", "[passage]")


@pytest.mark.parametrize("kind", ["bert-base-uncased", "roberta-base", "t5", "xlm-roberta"])
def test_added_tokens_come_behind_all_others_and_leave_the_tokenizer_alone(kind: str):
    source = load_tokenizer(tokenizer_folder(kind))
    text = TextConfig("authors-code-encoder")
    assert missing_tokens(source, text) == MARKERS
    size = vocabulary_size(source)
    tokenizer = add_tokens(source, MARKERS)
    assert tokenizer.convert_tokens_to_ids(list(MARKERS)) == [size, size + 1]
    assert vocabulary_size(tokenizer) == size + 2
    assert missing_tokens(tokenizer, text) == ()
    assert vocabulary_size(source) == size
    assert size not in source("[query]")["input_ids"]
    assert tokenizer("[query]", add_special_tokens=False)["input_ids"] == [size]


def test_a_template_of_plain_words_adds_nothing():
    source = load_tokenizer(tokenizer_folder("bert-base-uncased"))
    assert missing_tokens(source, TextConfig("paper-encoder")) == ()


def test_ids_with_gaps_are_refused():
    vocabulary = Tokenizer(models.WordLevel({"a": 0, "b": 7}, unk_token="a"))
    with pytest.raises(InputError, match=r"cannot take the tokens \[query\], \[passage\] behind"):
        add_tokens(PreTrainedTokenizerFast(tokenizer_object=vocabulary), MARKERS)
