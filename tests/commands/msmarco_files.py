"""MS MARCO's document files, of 30 documents, and what a folder of an import holds."""

from pathlib import Path

ARGUMENTS = ("--source", "source", "--output", "out")


def body(number: int) -> str:
    """The body of a document."""
    return f'"{number}" said\u2028the {number}th'


def write_source(folder: Path) -> Path:
    """Write the files of train, dev and dl19; document D77 is judged and not there."""
    folder.mkdir()
    titles = ["" if number == 3 else "A title" for number in range(30)]
    lines = [
        f"D{number}\thttp://x/{number}\t{title}\t{body(number)}\n".encode()
        for number, title in enumerate(titles)
    ]
    offsets = [sum(map(len, lines[:number])) for number in range(30)]
    files = {
        "msmarco-docs.tsv": b"".join(lines).decode(),
        "msmarco-docs-lookup.tsv": "".join(f"D{n}\t0\t{offsets[n]}\n" for n in range(30)),
        "msmarco-doctrain-queries.tsv": "".join(f"{n}\tquery {n}\n" for n in range(10)),
        "msmarco-doctrain-qrels.tsv": "".join(f"{n} 0 D{n} 1\n" for n in range(9)) + "9 0 D77 1\n",
        "msmarco-docdev-queries.tsv": "".join(f"{n}\tquery {n}\n" for n in range(8, 12)),
        "msmarco-docdev-qrels.tsv": "".join(f"{n} 0 D{n} 1\n" for n in range(10, 12)),
        "msmarco-test2019-queries.tsv": "20\tquery 20\n21\tquery 21\n",
        "2019qrels-docs.txt": "20 Q0 D1 3\n20 Q0 D2 0\n",
    }
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Name inside the folder -> bytes, of every file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def states(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Name inside the folder -> bytes and time of change."""
    return {
        name: (content, (folder / name).stat().st_mtime_ns)
        for name, content in contents(folder).items()
    }


def change(path: Path, old: str, new: str) -> None:
    """Put `new` for the first `old`, which must be there."""
    content = path.read_text()
    assert old in content
    path.write_bytes(content.replace(old, new, 1).encode())
