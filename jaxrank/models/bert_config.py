"""The sizes and constants of BERT and its kin, which `jaxrank.models.bert` computes."""

from dataclasses import dataclass

from jaxrank.errors import InputError
from jaxrank.models.backbone import BackboneConfig


@dataclass(frozen=True)
class BertConfig(BackboneConfig):
    """Sizes and constants of a BERT encoder; the defaults are bert-base-uncased."""

    vocab_size: int = 30522
    """Rows of the token table; the default is bert-base-uncased's vocabulary."""

    hidden_size: int = 768
    """Width of a token's vector; the default is the base size."""

    num_layers: int = 12
    """Transformer layers; the default is the base size."""

    num_heads: int = 12
    """Attention heads; each is hidden_size / num_heads wide, 64 in the published sizes."""

    intermediate_size: int = 3072
    """Width inside the feed-forward part; the published sizes take 4 x hidden_size."""

    max_position_embeddings: int = 512
    """Longest input, in tokens: the rows of the position table. BERT was trained with 512."""

    type_vocab_size: int = 2
    """Rows of the token type table: the query is 0, the document 1."""

    hidden_dropout: float = 0.1
    """Rate after the embeddings and before each residual sum, in training only; as published."""

    attention_dropout: float = 0.1
    """Rate on the attention probabilities, in training only; as published."""

    layer_norm_epsilon: float = 1e-12
    """Added to the variance in every normalisation; as published."""

    initializer_range: float = 0.02
    """Standard deviation of random weights at the start; as published."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % self.num_heads:
            raise InputError(
                f"{type(self).__name__}: hidden_size is {self.hidden_size}; it must be a multiple "
                f"of num_heads ({self.num_heads})"
            )
        if self.max_length < 1:
            rows, row = self.max_position_embeddings, self.first_position
            raise InputError(f"max_position_embeddings is {rows}; the first token takes row {row}")

    @property
    def first_position(self) -> int:
        """Row of the position table that the first token takes."""
        return 0

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings; those of another width than the layers' are projected."""
        return self.hidden_size

    @property
    def max_length(self) -> int:
        """Longest input in tokens: one for each position from the first on."""
        return self.max_position_embeddings - self.first_position


@dataclass(frozen=True)
class RobertaConfig(BertConfig):
    """As BertConfig, with the published models' place for the first token."""

    pad_token_id: int = 1
    """The first token takes row pad_token_id + 1 of the position table: fairseq numbered tokens
    from there. All published models have 1."""

    @property
    def first_position(self) -> int:
        """Row of the position table that the first token takes."""
        return self.pad_token_id + 1


@dataclass(frozen=True)
class ElectraConfig(BertConfig):
    """As BertConfig, with a width of their own for the embeddings."""

    embedding_size: int = 768
    """Width of the embeddings; where it is not hidden_size, a linear layer follows them. The small
    sizes have 128 for a hidden_size of 256."""

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings; those of another width than the layers' are projected."""
        return self.embedding_size
