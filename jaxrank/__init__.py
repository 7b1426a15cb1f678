"""jaxrank: text reranking in pure JAX, with state-space and transformer cross-encoders.

Public names are imported when first used, so that `import jaxrank` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jaxrank.version import __version__ as __version__

if TYPE_CHECKING:
    from jaxrank.ops.conv import causal_conv1d as causal_conv1d
    from jaxrank.ops.selective_scan import selective_scan as selective_scan
    from jaxrank.ops.ssd import ssd as ssd
    from jaxrank.ranking.document_states.cache import CachedStates as CachedStates
    from jaxrank.ranking.document_states.on_device import DeviceStates as DeviceStates
    from jaxrank.ranking.document_states.states import DocumentStates as DocumentStates
    from jaxrank.ranking.policies import LongDocuments as LongDocuments
    from jaxrank.ranking.windows import TitledText as TitledText
    from jaxrank.reranker import Reranker as Reranker
    from jaxrank.training.losses import info_nce as info_nce
    from jaxrank.training.losses import kl_distillation as kl_distillation
    from jaxrank.training.losses import listwise_softmax as listwise_softmax
    from jaxrank.training.losses import margin_mse as margin_mse
    from jaxrank.training.losses import ranknet as ranknet

_HOMES = {
    "Reranker": "jaxrank.reranker",
    "DocumentStates": "jaxrank.ranking.document_states.states",
    "CachedStates": "jaxrank.ranking.document_states.cache",
    "DeviceStates": "jaxrank.ranking.document_states.on_device",
    "LongDocuments": "jaxrank.ranking.policies",
    "TitledText": "jaxrank.ranking.windows",
    "selective_scan": "jaxrank.ops.selective_scan",
    "ssd": "jaxrank.ops.ssd",
    "causal_conv1d": "jaxrank.ops.conv",
    "info_nce": "jaxrank.training.losses",
    "kl_distillation": "jaxrank.training.losses",
    "listwise_softmax": "jaxrank.training.losses",
    "margin_mse": "jaxrank.training.losses",
    "ranknet": "jaxrank.training.losses",
}
__all__ = [
    "CachedStates",
    "DeviceStates",
    "DocumentStates",
    "LongDocuments",
    "Reranker",
    "TitledText",
    "causal_conv1d",
    "info_nce",
    "kl_distillation",
    "listwise_softmax",
    "margin_mse",
    "ranknet",
    "selective_scan",
    "ssd",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxrank' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
