"""The letters of array shapes, and the jaxtyping aliases that go with them.

Local arrays carry the letters as a suffix (`hidden_BLD`); annotations carry them as a string
(`Float[Array, "B L D"]`). A letter has one meaning in the whole project:

    B  sequences in a batch (one query-document pair each)
    L  tokens of a sequence              S  tokens attended to (keys), where it differs from L
    D  channels: width of the model, or inner width of a mixer
    N  states of a state-space channel   W  width of the causal convolution
    H  heads, of attention or Mamba-2    K  channels of an attention head
    G  groups of Mamba-2's heads         P  channels of a Mamba-2 head
    F  width of a feed-forward layer     V  vocabulary
    Q  queries of a training batch (one group each)
    C  candidates of a query: one positive, then its negatives
    T  texts that share a row, where rows are packed

Annotations are checked at run time in the tests and cost nothing in production.
"""

from jax import Array
from jaxtyping import Bool, Float, Float32, Int, Integer, Key, PyTree, UInt32

__all__ = ["Array", "Bool", "Float", "Float32", "Int", "Integer", "Key", "PyTree", "UInt32"]
