"""The README.md of a saved folder: how it scores in jaxrank and, by the same lines of Python that a
test runs, in PyTorch.
"""

from collections.abc import Sequence

from ckpt_convert.architectures import ARCHITECTURES
from jaxrank.models.families import get_family
from jaxrank.models.module import RerankerConfig
from jaxrank.text.layout import Slot
from jaxrank.text.tokenize import PairTokenizer
from jaxrank.version import __version__

_README = """\
---
library_name: {library}
pipeline_tag: text-ranking
tags:
- reranker
{tags}- {family}
- jax
---

# {name}

A reranker of the family {family} ({count:,} parameters): a query and a document go in, one
relevance score comes out. Higher is more relevant; scores are raw, not probabilities.

```python
import jaxrank

pairs = [("the query", "a document"), ("the query", "another document")]
scores = jaxrank.Reranker.from_pretrained("{name}").predict(pairs)
```

In PyTorch:

```python
{code}
```
{remark}
## Input

Template `{template}`, at most {max_length} tokens; head `{head}`. Both are in `config.json` under
`jaxrank`.

## Provenance

{provenance}
"""

_REMARK = """
Not for sentence-transformers' `CrossEncoder`, which knows neither the head `linear` nor a template
like `{template}`. What transformers reports while loading is in order: the lines above read
`score.*` themselves, use no pooler, and cut texts to the model's length.
"""

_CROSS_ENCODER = """\
from sentence_transformers import CrossEncoder

scores = CrossEncoder("{name}").predict(pairs)"""

_ONE_BY_ONE = """\
import torch
import transformers
{imports}
tokenizer = transformers.AutoTokenizer.from_pretrained("{name}")
model = transformers.{model_class}.from_pretrained("{name}").eval()
{setup}

@torch.no_grad()
def score(query, document):
{encoding}
{scoring}

scores = [score(query, document) for query, document in pairs]"""

_PAIR = """\
    inputs = tokenizer(
        [(query, document)],
        truncation="longest_first",
        max_length={max_length},
        return_tensors="pt",
    )"""

_SEGMENTS = """\
    def tokens(text):
        return tokenizer(text, add_special_tokens=False).input_ids

    query = tokens({query_literal}query)[:{query_budget}]
    document = tokens({document_literal}document)[:{document_budget}]
    inputs = {{"input_ids": torch.tensor([{parts}])}}"""


def make_readme(
    name: str,
    config: RerankerConfig,
    tokenizer: PairTokenizer,
    *,
    count: int,
    digest: str,
    provenance: Sequence[str],
) -> str:
    """The README of a folder called `name`.

    Args:
        count: how many numbers the weights are.
        digest: SHA-256 of the weight file.
        provenance: what the model was made from, one line each.
    """
    is_cross_encoder = _is_cross_encoder(config, tokenizer)
    lines = [*provenance, f"written by jaxrank {__version__}", f"weights sha256 {digest}"]
    return _README.format(
        library="sentence-transformers" if is_cross_encoder else "transformers",
        tags="- cross-encoder\n" if is_cross_encoder else "",
        remark="" if is_cross_encoder else _REMARK.format(template=tokenizer.text.template),
        family=config.family,
        name=name,
        count=count,
        code=torch_code(name, config, tokenizer),
        template=tokenizer.text.template,
        max_length=tokenizer.text.max_length,
        head=config.head,
        provenance="\n".join(f"- {line}" for line in lines),
    )


def torch_code(name: str, config: RerankerConfig, tokenizer: PairTokenizer) -> str:
    """Lines of Python that score `pairs` with the folder `name` in PyTorch."""
    if _is_cross_encoder(config, tokenizer):
        return _CROSS_ENCODER.format(name=name)
    is_linear = config.head == "linear"
    return _ONE_BY_ONE.format(
        name=name,
        imports="from safetensors.torch import load_file\n" if is_linear else "",
        model_class=ARCHITECTURES[config.family].classes[config.head],
        setup=_setup(name, config),
        encoding=_encoding(tokenizer),
        scoring=_scoring(config),
    )


def _is_cross_encoder(config: RerankerConfig, tokenizer: PairTokenizer) -> bool:
    return config.head == "classification" and tokenizer.template.is_pair


def _setup(name: str, config: RerankerConfig) -> str:
    if config.head == "linear":
        return f'weights = load_file("{name}/model.safetensors")\n'
    if get_family(config.family).pooling == "last":
        # Where the end of a text is also the pad token, transformers would look before it.
        return "model.config.pad_token_id = None  # one text at a time: its last token is scored\n"
    return ""


def _encoding(tokenizer: PairTokenizer) -> str:
    text = tokenizer.text
    if tokenizer.template.is_pair:
        return _PAIR.format(max_length=text.max_length)
    literals = {part.field: part.literal for part in tokenizer.layout if isinstance(part, Slot)}
    parts = [
        f"*{part.field}" if isinstance(part, Slot) else ", ".join(map(str, part.ids.tolist()))
        for part in tokenizer.layout
    ]
    is_fixed = tokenizer.template.document_budget == "fixed"
    return _SEGMENTS.format(
        query_literal=f"{literals['query']!r} + " if literals["query"] else "",
        document_literal=f"{literals['document']!r} + " if literals["document"] else "",
        query_budget=tokenizer.query_budget,
        document_budget=tokenizer.document_budget if is_fixed else f"{tokenizer.room} - len(query)",
        parts="[" + ", ".join(part for part in parts if part) + "]",
    )


def _scoring(config: RerankerConfig) -> str:
    if config.head == "classification":
        return "    return model(**inputs).logits[0, 0].item()"
    family = get_family(config.family)
    lines = []
    if config.backbone.decoder_layers is not None:  # It takes one step.
        start = config.backbone.decoder_start_token_id
        lines.append(f'inputs["decoder_input_ids"] = torch.tensor([[{start}]])')
    position = 0 if family.pooling == "first" else -1
    lines.append(f"hidden = model(**inputs).last_hidden_state[0, {position}]")
    lines.append('score = weights["score.weight"][0] @ hidden + weights["score.bias"][0]')
    lines.append("return score.item()")
    return "\n".join(f"    {line}" for line in lines)
