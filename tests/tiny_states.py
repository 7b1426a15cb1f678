"""A collection of ten documents, runs over it, and tiny models whose documents have states."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig, build_module, init_module, parameters
from jaxrank.reranker import Reranker
from jaxrank.text.templates import TextConfig

WORDS = ("heart", "liver", "asthma", "fever", "cough", "rash", "pain", "stroke", "cancer", "burn")
QUERIES = {"q0": "what is gout", "q1": "is acne painful", "q2": "why we cough"}
DOCUMENTS = {
    f"d{number}": " ".join(np.random.default_rng(number).choice(WORDS, 2 + 5 * number))
    for number in range(10)
}
# Each query has documents of its own and some that others have too.
RUN = {
    query: {f"d{(3 * place + rank) % 10}": 9.0 - rank for rank in range(6)}
    for place, query in enumerate(QUERIES)
}
TEXT = TextConfig("paper-decoder", max_length=48, query_length=16)


def write_collection(folder: Path, documents: Mapping[str, str] = DOCUMENTS) -> None:
    """Write the collection `c` and the run `in.run`."""
    (folder / "c").mkdir(exist_ok=True)
    for name, texts in (("corpus", documents), ("queries", QUERIES)):
        lines = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (folder / "c" / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    write_run(folder / "in.run", RUN)


def write_run(path: Path, run: Mapping[str, Mapping[str, float]]) -> None:
    lines = [f"{q} Q0 {d} 1 {score} t" for q, scores in run.items() for d, score in scores.items()]
    path.write_text("".join(f"{line}\n" for line in lines))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word: of large vocabularies, reading them would be most of a test's time."""
    words = [
        *["<unk>", "<pad>", "</s>", "document", ":", "query"],
        *WORDS,
        *" ".join(QUERIES.values()).split(),
    ]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="</s>"
    )


def save_model(folder: Path, *, seed: int = 0) -> None:
    """Write the folder of a tiny Mamba whose scores of different documents differ."""
    preset = get_family("mamba").presets["mamba-tiny"]
    backbone = replace(preset, hidden_size=32, num_layers=1, vocab_size=64)
    config = RerankerConfig("mamba", backbone, head="linear")
    start = {name: np.asarray(a) for name, a in parameters(init_module(config, seed=seed)).items()}
    # As after training: at a random start the layers change little of what the query alone says.
    start |= {name: 4 * value for name, value in start.items() if name.endswith(".kernel")}
    model = Reranker(config, build_module(config, start), make_tokenizer(), TEXT)
    model.save_pretrained(folder)
