"""The checks by name, in the order in which they run: what is worth most comes first.

Each is a function from `Sizes` to rows, which runs in a process of its own. Operations come before
whole models, and both before speed, but for the Mosaic scan's own, which the project rests on; ours
alone are measured before anything beside PyTorch, whose compiler takes minutes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from scripts.gpu_check.around import check_causal_conv1d, check_norms_and_dropout, time_around
from scripts.gpu_check.attention import check_attention
from scripts.gpu_check.benchmarks import LENGTHS_OF, bench, bench_against
from scripts.gpu_check.document_states import bench_document_states, check_document_states
from scripts.gpu_check.models import check_models
from scripts.gpu_check.poison import check_poisoned
from scripts.gpu_check.repeats import check_repeats
from scripts.gpu_check.resume import check_resume
from scripts.gpu_check.rows import Row, Sizes
from scripts.gpu_check.scan import check_mosaic_scan, check_selective_scan
from scripts.gpu_check.shared_training import check_shared_training
from scripts.gpu_check.ssd import check_ssd
from scripts.gpu_check.training import check_training


@dataclass(frozen=True)
class Check:
    """A check, and how its process is run."""

    run: Callable[[Sizes], Iterator[Row]]
    silence_s: float = 120.0
    """Without a new row, after which it counts as hanging: no case should take half as long."""
    is_beside_pytorch: bool = False
    """Two libraries share the GPU, so JAX may not take most of its memory beforehand."""
    runs_mosaic: bool = False
    """If it does not end by itself, later checks keep off the Mosaic kernels."""


def _bench(*arguments: str) -> Check:
    return Check(bench(*arguments), silence_s=200.0)


def _against(*arguments: str) -> Check:
    return Check(bench_against(*arguments), silence_s=300.0, is_beside_pytorch=True)


CHECKS: dict[str, Check] = {
    "mosaic_scan": Check(check_mosaic_scan, runs_mosaic=True),
    "selective_scan": Check(check_selective_scan),
    "ssd": Check(check_ssd),
    "causal_conv1d": Check(check_causal_conv1d),
    "norms_and_dropout": Check(check_norms_and_dropout),
    "poisoned": Check(check_poisoned),
    "repeats": Check(check_repeats),
    "bench_scan": _bench("scan"),
    "attention": Check(check_attention),
    "models": Check(check_models),
    "training": Check(check_training),
    "shared_training": Check(check_shared_training),
    "document_states": Check(check_document_states),
    **{f"bench_train_{preset}": _bench("train", preset) for preset in LENGTHS_OF},
    "bench_around": Check(time_around),
    "bench_document_states": Check(bench_document_states, silence_s=300.0),
    "bench_ssd": _bench("ssd"),
    "bench_attention": _bench("attention"),
    "bench_score": _bench("score"),
    "against_scan": _against("scan"),
    "against_score": _against("score"),
    **{f"against_train_{preset}": _against("train", preset) for preset in LENGTHS_OF},
    "resume": Check(check_resume, silence_s=300.0),
    "bench_layer": _bench("layer"),
    "against_ssd": _against("ssd"),
    "against_attention": _against("attention"),
    "against_layer": _against("layer"),
}
CORRECTNESS = [name for name in CHECKS if not name.startswith(("bench_", "against_"))]
