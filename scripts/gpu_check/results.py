"""The results file: written after every check, so a run that is killed leaves what it has done.

A run of some checks (`--only`) puts its results into the file of an earlier run on the same machine
in place of those checks' own; every check keeps the seed, commit and time that it ran with.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jaxrank.benchmarking import report
from jaxrank.files import atomic_open
from scripts.gpu_check.bounds import BOUNDS
from scripts.gpu_check.rows import Row

FORMAT = "gpu_check 2"


class Results:
    """All checks' results of one machine.

    Args:
        keep: whether what another run has left there stays.
    """

    def __init__(self, path: Path, machine: Mapping[str, Any], *, keep: bool) -> None:
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

    def add(
        self,
        name: str,
        rows: Sequence[Row],
        *,
        seed: int,
        seconds: float,
        measured: Sequence[report.Row] = (),
    ) -> None:
        """Write the file anew with a check's rows.

        Args:
            measured: the benchmarks' own rows.
        """
        self._values["checks"][name] = {
            "seed": seed,
            "source": self._source,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": seconds,
            "rows": [asdict(row) for row in rows],
            "benchmarks": [asdict(row) for row in measured],
        }
        self._values["bounds"] = [
            {
                "title": title,
                "measured": value,
                "least": least,
                "aim": aim,
                "verdict": verdict,
                "needs": needs,
            }
            for title, value, least, aim, verdict, needs in self.bounds()
        ]
        with atomic_open(self.path) as file:
            file.write(json.dumps(self._values, indent=1) + "\n")

    def bounds(self) -> list[tuple[str, float | None, float, float | None, str, str]]:
        """Title, measured, least, aim, verdict and needs of each, over all checks in the file."""
        rows = [
            report.Row(**row)
            for check in self._values["checks"].values()
            for row in check["benchmarks"]
        ]
        verdicts = [(bound, *bound.verdict(rows)) for bound in BOUNDS]
        return [
            (bound.title, value, bound.least, bound.aim, verdict, bound.needs)
            for bound, verdict, value in verdicts
        ]

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
        if any(value is not None for _, value, *_ in bounds):
            lines += ["", f"{'bound':76} {'measured':>8} {'least':>6} {'aim':>5}"]
        for title, value, least, aim, verdict, needs in bounds:
            if value is not None:
                aimed = "" if aim is None else f"{aim:.2f}"
                lines.append(f"{title:76} {value:8.2f} {least:6.2f} {aimed:>5} {verdict}")
            elif len(lines) > 1 + len(self._values["checks"]):
                lines.append(f"{title:76} {'-':>8} {least:6.2f} {'':5} {verdict} {needs}".rstrip())
        return lines
