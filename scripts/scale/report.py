"""What the measurements say: checks of the bounds, cost per document, larger sets on paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scripts.reproduction.papers import RANKMAMBA_GROUPS

Row = dict[str, Any]

BUILD_BOUND = 1 << 30
MINING_BOUND = 2 << 30
INDEX_BYTES_HELD = 8 + 8 + 8 + 4 + 1
"""A document's while ids are sorted: hash, order, sorted hash, row, whether it is repeated."""

MSMARCO_DOCUMENTS, MSMARCO_BYTES = 3_213_835, 22 * 10**9
"""Documents of msmarco-docs.tsv, and its size."""


@dataclass(frozen=True)
class Check:
    """One promise, and whether it was kept."""

    name: str
    value: float
    bound: float

    @property
    def kept(self) -> bool:
        """Whether the value is within the bound."""
        return self.value <= self.bound

    def line(self) -> str:
        """In words."""
        return f"{'ok  ' if self.kept else 'FAIL'} {self.name}: {self.value:,.2f} of {self.bound:g}"


def per_document(row: Row, start: Row, key: str = "build_s") -> float:
    """Seconds of building that each document costs beyond what a tiny collection takes."""
    return max(0.0, float(row[key]) - float(start[key])) / int(row["documents"])


def checks(start: Row, sizes: Sequence[Row], *, flat_within: float) -> list[Check]:
    """The bounds on memory, in MiB, and on the curve of costs per document."""
    found = [
        Check(
            f"peak RSS of building {row['documents']:,} documents, MiB",
            row["build_peak_rss"] / 2**20,
            BUILD_BOUND / 2**20,
        )
        for row in sizes
    ]
    found += [
        Check(
            f"peak RSS of mining {mined['groups']:,} groups from {row['documents']:,} documents, "
            "MiB",
            mined["peak_rss"] / 2**20,
            MINING_BOUND / 2**20,
        )
        for row in sizes
        for mined in row["mining"]
    ]
    if len(sizes) > 1:
        # Of the processor: time on the clock has the disk and other programs in it.
        smallest, *larger = (per_document(row, start, "build_cpu_s") for row in sizes)
        found += [
            Check(
                f"CPU time a document at {row['documents']:,} documents, relative to "
                f"{sizes[0]['documents']:,}",
                cost / smallest if smallest else float("inf"),
                flat_within,
            )
            for row, cost in zip(sizes[1:], larger, strict=True)
        ]
    return found


def extrapolate(start: Row, sizes: Sequence[Row]) -> list[Row]:
    """What larger sets would take, from the largest that was measured.

    Time and disk grow with the bytes of text, the index and what the build holds of it with the
    documents.
    """
    last = sizes[-1]
    index_each = last["index_bytes"] / last["documents"]
    text_share = (last["store_bytes"] - last["index_bytes"]) / last["source_bytes"]
    build_s_each_byte = per_document(last, start) * last["documents"] / last["source_bytes"]
    found = []
    for name, documents, source_bytes in (
        ("MS MARCO document", MSMARCO_DOCUMENTS, MSMARCO_BYTES),
        (
            "100 million documents as here",
            10**8,
            10**8 * last["source_bytes"] // last["documents"],
        ),
    ):
        added = documents - last["documents"]
        found.append(
            {
                "set": name,
                "documents": documents,
                "source_bytes": source_bytes,
                "build_s": start["build_s"] + build_s_each_byte * source_bytes,
                "build_peak_anonymous": last["build_peak_anonymous"] + INDEX_BYTES_HELD * added,
                "store_bytes": index_each * documents + text_share * source_bytes,
                "index_bytes": index_each * documents,
            }
        )
    return found


def extrapolate_mining(last: Row) -> Row | None:
    """What mining MS MARCO document's groups would take, by the growth between two numbers."""
    if len(last["mining"]) < 2:
        return None
    fewer, more = last["mining"][-2:]
    steps = (RANKMAMBA_GROUPS - more["groups"]) / (more["groups"] - fewer["groups"])
    row: Row = {"groups": RANKMAMBA_GROUPS}
    for key in ("seconds", "peak_anonymous"):
        row[key] = more[key] + steps * (more[key] - fewer[key])
    return row


def tables(start: Row, sizes: Sequence[Row]) -> list[str]:
    """The measurements as tables of Markdown."""
    lines = [
        "| Documents | Text, GB | Build, s | µs a document | CPU, µs a document | MB/s "
        "| Peak RSS, MiB | anonymous, MiB | Store, bytes a document | Index, bytes a document |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in (start, *sizes):
        cost = per_document(row, start)
        lines.append(
            f"| {row['documents']:,} | {row['source_bytes'] / 1e9:.3f} | {row['build_s']:.1f} "
            f"| {cost * 1e6:.0f} | {per_document(row, start, 'build_cpu_s') * 1e6:.0f} "
            f"| {_rate(row, cost)} "
            f"| {row['build_peak_rss'] / 2**20:.0f} | {row['build_peak_anonymous'] / 2**20:.0f} "
            f"| {row['store_bytes'] / row['documents']:,.0f} "
            f"| {row['index_bytes'] / row['documents']:.1f} |"
        )
    lines += [
        "",
        "| Documents | Open, s | Cold reads/s | p99, ms | from disk, kB | Warm reads/s | p99, ms "
        "| Peak RSS, MiB | anonymous, MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sizes:
        read, cold, warm = row["reads"], row["reads"]["cold"], row["reads"]["warm"]
        lines.append(
            f"| {row['documents']:,} | {read['open_s']:.2f} | {cold['reads_per_second']:,.0f} "
            f"| {cold['p99_ms']:.2f} | {cold['disk_bytes'] / 1e3:.0f} "
            f"| {warm['reads_per_second']:,.0f} | {warm['p99_ms']:.2f} "
            f"| {read['peak_rss'] / 2**20:.0f} | {read['peak_anonymous'] / 2**20:.0f} |"
        )
    lines += [
        "",
        "| Documents | Groups | Mining, s | µs a group | Peak RSS, MiB | anonymous, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for row in sizes:
        for mined in row["mining"]:
            lines.append(
                f"| {row['documents']:,} | {mined['groups']:,} | {mined['seconds']:.1f} "
                f"| {mined['seconds'] / mined['groups'] * 1e6:.0f} "
                f"| {mined['peak_rss'] / 2**20:.0f} | {mined['peak_anonymous'] / 2**20:.0f} |"
            )
    return lines


def paper_lines(extrapolated: Sequence[Row], mining: Row | None) -> list[str]:
    """What was extrapolated, in words."""
    lines = []
    for row in extrapolated:
        lines.append(
            f"on paper, {row['set']} ({row['documents']:,} documents, "
            f"{row['source_bytes'] / 1e9:,.0f} GB): build {row['build_s'] / 60:,.0f} min, store "
            f"{row['store_bytes'] / 1e9:,.1f} GB, of it index {row['index_bytes'] / 1e9:.2f} GB, "
            f"anonymous memory {row['build_peak_anonymous'] / 2**30:.2f} GiB"
        )
    if mining:
        lines.append(
            f"on paper, mining {mining['groups']:,} groups: {mining['seconds']:,.0f} s, anonymous "
            f"memory {mining['peak_anonymous'] / 2**30:.2f} GiB"
        )
    return lines


def _rate(row: Row, seconds_each: float) -> str:
    if not seconds_each:
        return ""
    return f"{row['source_bytes'] / row['documents'] / seconds_each / 1e6:.0f}"
