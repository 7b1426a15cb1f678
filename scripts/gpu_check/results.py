"""The results file: written after every check, so a run that is killed leaves what it has done.

A run of some checks (`--only`) puts its results into the file of an earlier run on the same machine
in place of those checks' own; every check keeps the seed, commit and time that it ran with.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jaxrank.benchmarking import report
from jaxrank.files import atomic_open
from scripts.gpu_check.bounds import BOUNDS, Bound, Found, Verdict
from scripts.gpu_check.rows import Row

FORMAT = "gpu_check 3"


class Results:
    """All checks' results of one machine.

    Args:
        keep: whether what another run has left there stays.
        say: called with a line if it cannot stay.
    """

    def __init__(
        self,
        path: Path,
        machine: Mapping[str, Any],
        *,
        keep: bool,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.path = path
        same = ("device", "versions")
        self._values: dict[str, Any] = {
            "format": FORMAT,
            "machine": {name: value for name, value in machine.items() if name != "source"},
            "checks": {},
        }
        self._source = machine["source"]
        if keep and path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            is_same = found.get("format") == FORMAT and all(
                found["machine"][name] == machine[name] for name in same
            )
            if is_same:
                self._values["checks"] = found["checks"]
            else:
                say(f"{path}: from another machine, or other versions; its checks are dropped")

    def add(self, name: str, rows: Sequence[Row], *, seed: int, seconds: float) -> None:
        """Write the file anew with a check's rows."""
        self._values["checks"][name] = {
            "seed": seed,
            "source": self._source,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": seconds,
            "rows": [asdict(row) for row in rows],
        }
        self._values["bounds"] = [
            {
                "title": bound.title,
                "measured": found.value,
                "least": bound.least,
                "aim": bound.aim,
                "verdict": verdict,
                "note": found.note,
            }
            for bound, verdict, found in self.bounds()
        ]
        with atomic_open(self.path) as file:
            file.write(json.dumps(self._values, indent=1) + "\n")

    def has(self, name: str) -> bool:
        """Whether a check's rows are there."""
        return name in self._values["checks"]

    def bounds(self) -> list[tuple[Bound, Verdict, Found]]:
        """Each bound's verdict over all checks in the file."""
        rows = [
            report.Row(**row["benchmark"])
            for check in self._values["checks"].values()
            for row in check["rows"]
            if row["benchmark"] is not None
        ]
        return [(bound, *bound.verdict(rows)) for bound in BOUNDS]

    def table(self) -> list[str]:
        """A line a check, and a line a bound where any was measured."""
        lines = [f"{'check':28} {'ok':>4} {'failed':>6} {'not run':>7} {'seconds':>8} seed"]
        for name, check in self._values["checks"].items():
            oks = [row["ok"] for row in check["rows"]]
            lines.append(
                f"{name:28} {oks.count(True):4} {oks.count(False):6} {oks.count(None):7} "
                f"{check['seconds']:8.1f} {check['seed']}"
            )
        bounds = self.bounds()
        if all(found.value is None for _, _, found in bounds):
            return lines
        lines += ["", f"{'bound':76} {'measured':>8} {'least':>6} {'aim':>5}"]
        for bound, verdict, found in bounds:
            shown = "-" if found.value is None else f"{found.value:.2f}"
            aimed = "" if bound.aim is None else f"{bound.aim:.2f}"
            more = f" ({found.note})" if found.note else ""
            lines.append(
                f"{bound.title:76} {shown:>8} {bound.least:6.2f} {aimed:>5} {verdict}{more}"
            )
        return lines
