"""What a measurement leaves: figures with machine, versions, commit and command; promises kept."""

import json
import os
import platform
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from jaxrank.benchmarking.report import describe_machine
from jaxrank.files import atomic_open


@dataclass(frozen=True)
class Promise:
    """A bound, what was measured, and whether it was kept."""

    name: str
    value: float
    bound: float
    side: Literal["at most", "at least"] = "at most"

    @property
    def kept(self) -> bool:
        """Whether the value is on the right side; a NaN never is."""
        return self.value <= self.bound if self.side == "at most" else self.value >= self.bound

    def line(self) -> str:
        """In words."""
        verdict = "ok  " if self.kept else "FAIL"
        return f"{verdict} {self.name}: {self.value:.4g} ({self.side} {self.bound:g})"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table of Markdown, the first column flush left and the others flush right."""
    rules = ["---", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rules, *rows))


def write_report(
    path: Path, options: Namespace, results: Mapping[str, Any], promises: Sequence[Promise] = ()
) -> None:
    """Write the figures as JSON, beside all that they mean nothing without."""
    report = {
        "command": this_command(),
        "machine": describe_machine() | _processor(),
        "settings": {name: _plain(value) for name, value in sorted(vars(options).items())},
        **results,
        "promises": [{**asdict(promise), "kept": promise.kept} for promise in promises],
    }
    with atomic_open(path) as file:
        file.write(json.dumps(report, indent=1) + "\n")


def this_command() -> str:
    """How this process was called."""
    return shlex.join(
        ["python", "-m", f"scripts.document_states.{Path(sys.argv[0]).stem}", *sys.argv[1:]]
    )


def all_kept(promises: Sequence[Promise]) -> bool:
    """Print a line a promise; whether none is broken."""
    for promise in promises:
        print(promise.line(), flush=True)
    return all(promise.kept for promise in promises)


def _processor() -> dict[str, Any]:
    """Cores that this process may use, and memory; Linux only."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages * page_bytes / 2**30, 1),
        "system": platform.platform(),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
