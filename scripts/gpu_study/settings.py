"""What the results of a part depend on besides its model and seed, and the options that set it."""

import argparse
from dataclasses import asdict, dataclass
from typing import Any

from scripts.gpu_study.archive import Archive

MINUTES = 8.0


@dataclass(frozen=True)
class Settings:
    """Of all parts alike, so that what is compared is comparable."""

    epochs: int
    """Of the models from a random start; MiniLM gets one."""
    groups_per_batch: int
    cpu: bool
    """Toy models in float32 on a CPU."""
    plain: bool
    """XLA's attention and associative scan in place of the fused kernels."""

    @property
    def pairs_per_batch(self) -> int:
        """Pairs that are scored at once."""
        return 16 if self.cpu else 512

    def buckets(self, archive: Archive) -> tuple[int, ...]:
        """Lengths that batches are padded to: few, since each is compiled."""
        longest = archive.study["max_length"]
        quarters = (4,) if self.cpu else (1, 2, 3, 4)
        return tuple(longest * quarter // 4 for quarter in quarters)

    def as_json(self, archive: Archive) -> dict[str, Any]:
        """As plain values, with the digests of the folder's files."""
        return {**asdict(self), "files": archive.study["files"]}


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Options of both commands."""
    parser.add_argument("--cpu", action="store_true", help="toy models, to try the commands")
    parser.add_argument("--epochs", type=int, default=4, help="of the models from a random start")
    parser.add_argument("--groups_per_batch", type=int, default=32)
    parser.add_argument(
        "--plain", action="store_true", help="XLA's attention and scan, not the fused kernels"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=MINUTES,
        help="refuse a part that would train and score longer",
    )


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings that were asked for."""
    return Settings(options.epochs, options.groups_per_batch, options.cpu, options.plain)


def settings_arguments(options: argparse.Namespace) -> list[str]:
    """The same options, to give to a part's process."""
    flags = [f"--{name}" for name in ("cpu", "plain") if getattr(options, name)]
    names = ("epochs", "groups_per_batch", "minutes")
    return flags + [part for name in names for part in (f"--{name}", str(getattr(options, name)))]
