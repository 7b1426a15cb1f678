"""Each family's ids under each template, against ids put together with `tokenizers` alone.

Here the wordings, budgets and special tokens are written down once more, as the papers and the
authors' code have them: nothing of `jaxrank.text` helps to build what is expected.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.utils.sentencepiece_model_pb2_new import ModelProto

from jaxrank.models.families import FAMILIES
from jaxrank.text.added_tokens import add_tokens, missing_tokens
from jaxrank.text.templates import TextConfig, resolve_template
from jaxrank.text.tokenize import PairTokenizer, load_tokenizer
from tests.tokenizer_builders import SHIPPED, tokenizer_folder

LENGTH = 160  # cuts about half of the documents
QUERY_LENGTH = 50
PAIRS = 20

KINDS = {
    "bert": ("bert-base-uncased", "encoder"),
    "electra": ("bert-base-uncased", "encoder"),
    "roberta": ("roberta-base", "encoder"),
    "bart": ("roberta-base", "encoder"),
    "xlm-roberta": ("xlm-roberta", "encoder"),
    "modernbert": ("modernbert", "encoder"),
    "opt": ("opt", "decoder"),
    "gpt_neox": ("gpt-neox-20b", "decoder"),
    "mamba": ("gpt-neox-20b", "decoder"),
    "mamba2": ("gpt-neox-20b", "decoder"),
    "llama": ("llama", "decoder"),
    "t5": ("t5", "encoder-decoder"),
}
"""Family -> kind of tokenizer and wording."""


class Plain(NamedTuple):
    """A tokenizer of the `tokenizers` library and the special tokens of its kind."""

    tokenizer: Tokenizer
    cls: str = ""
    sep: str = ""
    eos: str = ""
    start: str = ""
    pad: str = ""
    has_types: bool = False

    def __call__(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def id(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        assert found is not None, token
        return found


def plain_bert() -> Plain:
    vocabulary = models.WordPiece.read_file(str(SHIPPED / "bert-base-uncased" / "vocab.txt"))
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
    return Plain(tokenizer, cls="[CLS]", sep="[SEP]", eos="[SEP]", has_types=True)


def byte_level_bpe(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer(
        models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "</s>", "<pad>"])
    return tokenizer


def plain_roberta() -> Plain:
    tokenizer = byte_level_bpe(SHIPPED / "roberta-base")
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return Plain(tokenizer, cls="<s>", sep="</s>", eos="</s>")


def plain_opt() -> Plain:
    tokenizer = byte_level_bpe(SHIPPED / "opt")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", 2)]
    )
    return Plain(tokenizer, eos="</s>", start="</s>")


def plain_t5() -> Plain:
    proto = ModelProto.FromString((SHIPPED / "t5" / "spiece.model").read_bytes())
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    pieces += [(f"<extra_id_{99 - number}>", 0.0) for number in range(100)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.add_special_tokens(["<pad>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return Plain(tokenizer, eos="</s>", pad="<pad>")


def from_file(kind: str, **tokens: str) -> Plain:
    return Plain(Tokenizer.from_file(str(tokenizer_folder(kind) / "tokenizer.json")), **tokens)


PLAIN: dict[str, Callable[[], Plain]] = {
    "bert-base-uncased": plain_bert,
    "roberta-base": plain_roberta,
    "opt": plain_opt,
    "t5": plain_t5,
    "gpt-neox-20b": lambda: from_file("gpt-neox-20b", eos="<|endoftext|>"),
    "xlm-roberta": lambda: from_file("xlm-roberta", cls="<s>", sep="</s>", eos="</s>"),
    "modernbert": lambda: from_file("modernbert", cls="[CLS]", sep="[SEP]", eos="[SEP]"),
    "llama": lambda: from_file("llama", start="<|begin_of_text|>", eos="<|end_of_text|>"),
}


def prompt(plain: Plain, query: str, document: str, *, ends: tuple[list[int], list[int]]):
    """A decoder's: document first, cut to LENGTH - 50; the query takes what is left of the 50."""
    start, end = ends
    room = QUERY_LENGTH - len(start) - len(end)
    return start + plain(document)[: LENGTH - QUERY_LENGTH] + plain(query)[:room] + end


def paper(plain: Plain, wording: str, query: str, document: str) -> list[int]:
    if wording == "decoder":
        end = [plain.id(plain.eos)]
        return prompt(plain, f"\n\nquery: {query}", f"document: {document}", ends=([], end))
    start = [plain.id(plain.cls)] if wording == "encoder" else []
    middle, end = [plain.id(plain.sep or plain.eos)], [plain.id(plain.eos)]
    query_ids = plain(query)[: QUERY_LENGTH - len(start) - 2]
    return start + query_ids + middle + plain(document)[: LENGTH - QUERY_LENGTH] + end


def authors(plain: Plain, text: str) -> list[int]:
    """One text, cut at its end, with the markers in the vocabulary."""
    plain.tokenizer.add_tokens(["[query]", "[passage]"])
    plain.tokenizer.enable_truncation(LENGTH)
    ids = plain.tokenizer.encode(text).ids
    plain.tokenizer.no_truncation()
    return ids


def authors_code(plain: Plain, wording: str, query: str, document: str) -> list[int]:
    if wording == "decoder":
        ends = ([plain.id(plain.start)] if plain.start else [], [plain.id(plain.eos)])
        return prompt(plain, f"\n\nQuery: {query}", f"Document: {document}", ends=ends)
    text = f"[query]{query}{plain.sep or plain.eos}[passage]{document}"
    return authors(plain, plain.pad + text)


def authors_code_evaluation(plain: Plain, wording: str, query: str, document: str) -> list[int]:
    if wording == "encoder":
        return authors_code(plain, wording, query, document)
    if wording == "encoder-decoder":
        return authors(plain, f"{plain.pad}[query]{query}[passage]{document}")
    ends = ([plain.id(plain.start)] if plain.start else [], [plain.id(plain.eos)])
    return prompt(plain, f"\n\n[query]{query}", f"Document: {document}", ends=ends)


def ssm_rerankers(plain: Plain, wording: str, query: str, document: str) -> list[int]:
    if wording == "decoder":
        end = [*plain(" ; "), plain.id(plain.eos)]
        return prompt(plain, f" ; query: {query}", f"document: {document}", ends=([], end))
    query_ids = plain(f" ; query: {query}")[: QUERY_LENGTH - 1]
    document_ids = plain(f" ; document: {document}")[: LENGTH - QUERY_LENGTH]
    return [plain.id(plain.cls), *query_ids, *document_ids]


EXPECTED = {
    "paper": paper,
    "authors-code": authors_code,
    "authors-code-evaluation": authors_code_evaluation,
    "ssm-rerankers": ssm_rerankers,
}


@cache
def real_pairs(folder: Path) -> list[tuple[str, str]]:
    """Questions of the dev split, each with the first passage that answers it."""
    texts = {}
    for name in ("queries.jsonl", "corpus.jsonl"):
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            texts[record["_id"]] = record["text"]
    judged = (folder / "qrels.dev.txt").read_text(encoding="utf-8").splitlines()
    positives = dict(line.split()[0:3:2] for line in reversed(judged))
    return [(texts[query], texts[document]) for query, document in positives.items()][:PAIRS]


@cache
def loaded(kind: str) -> tuple[PreTrainedTokenizerFast, Plain]:
    return load_tokenizer(tokenizer_folder(kind)), PLAIN[kind]()


def cases() -> list[tuple[str, str, str]]:
    kinds = dict.fromkeys(KINDS.values())
    return [
        (kind, wording, template)
        for kind, wording in kinds
        for template in ("pair", *EXPECTED)
        if (template, wording) != ("ssm-rerankers", "encoder-decoder")
    ]


@pytest.mark.parametrize(("kind", "wording", "template"), cases())
def test_ids_are_those_that_the_tokenizers_library_gives(
    kind: str, wording: str, template: str, medquad_mini: Path
):
    pairs = real_pairs(medquad_mini)
    assert len(pairs) == PAIRS
    if not template.startswith("authors-code"):
        pairs = pairs + [(document, query) for query, document in pairs[:4]]  # queries to cut
    source, plain = loaded(kind)
    text = TextConfig(resolve_template(template, wording=wording), max_length=LENGTH)
    source = add_tokens(source, missing_tokens(source, text))
    tokenizer = PairTokenizer(source, text)
    for (query, document), pair in zip(pairs, tokenizer.encode(pairs), strict=True):
        if template == "pair":
            plain.tokenizer.enable_truncation(LENGTH, strategy="longest_first")
            encoding = plain.tokenizer.encode(query, document)
            expected, types = encoding.ids, encoding.type_ids
        else:
            expected, types = EXPECTED[template](plain, wording, query, document), []
        assert pair.input_ids.tolist() == expected
        if not plain.has_types or template != "pair":
            types = [0] * len(expected)
        assert pair.token_type_ids.tolist() == types
        assert len(expected) <= LENGTH
    counts = tokenizer.counts
    assert 4 <= counts.truncated_documents < PAIRS
    if not template.startswith("authors-code"):
        assert 1 <= counts.truncated_queries <= 4


MODEL_CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "models").glob("*.yaml"))
PUBLISHED = {"bge-reranker-base": "xlm-roberta", "gte-reranker-modernbert-base": "modernbert"}
ONLY_IN_SECOND_PAPER = ("bart-", "electra-", "llama-", "mamba2-", "mamba-1.4b", "opt-1.3b")


def family_of(model: str) -> str:
    names = [name for name, family in FAMILIES.items() if model in family.presets]
    return PUBLISHED.get(model) or names[0]


@pytest.mark.parametrize("path", MODEL_CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("max_length", [128, 512])
def test_a_published_models_config_names_a_wording_that_its_tokenizer_has(
    path: Path, max_length: int
):
    template = yaml.safe_load(path.read_text())["text"]["template"]
    kind, wording = KINDS[family_of(path.stem)]
    text = TextConfig(resolve_template(template, wording=wording), max_length=max_length)
    assert PairTokenizer(loaded(kind)[0], text).document_budget >= max_length - QUERY_LENGTH
    if path.stem not in PUBLISHED:
        is_second = path.stem.startswith(ONLY_IN_SECOND_PAPER)
        assert text.template == f"{'ssm-rerankers' if is_second else 'paper'}-{wording}"


def test_every_family_has_its_ids_checked():
    assert {name: family.wording for name, family in FAMILIES.items()}.items() <= {
        name: wording for name, (_, wording) in KINDS.items()
    }.items()
