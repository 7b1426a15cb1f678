"""Files are read strictly, and written all or not at all."""

import errno
import gzip
import os
from pathlib import Path

import pytest

from jaxrank.errors import InputError
from jaxrank.files import (
    atomic_folder,
    atomic_open,
    check_apart,
    check_target,
    file_digest,
    parse_json_object,
    read_json,
    read_jsonl,
    read_lines,
)


def test_lines_lose_bom_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\n\nlast")
    assert list(read_lines(path)) == [(1, "one"), (2, "two"), (3, ""), (4, "last")]


def test_gzip_is_read_like_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress("ä\nb\n".encode()))
    assert list(read_lines(path)) == [(1, "ä"), (2, "b")]


def test_broken_gzip_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"line\n" * 10_000)[:-20])
    with pytest.raises(InputError, match=r"a\.txt\.gz:\d+: broken gzip"):
        list(read_lines(path))


def test_gzip_with_flipped_bits_names_the_file(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(bytes(range(256)) * 40))
    content[40:60] = b"\xff" * 20
    (tmp_path / "a.txt.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.txt\.gz:\d+: (broken gzip|byte)"):
        list(read_lines(tmp_path / "a.txt.gz"))


def test_invalid_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\nbad \xff byte\n")
    with pytest.raises(InputError, match=r"a\.txt:2: byte 5 .* not UTF-8"):
        list(read_lines(path))


@pytest.mark.parametrize("line", ["{", "[1]", "3", '{"a": 1} x', "[" * 100_000, "9" * 5_000])
def test_a_line_that_is_no_json_object_is_refused_by_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n' + line + "\n")
    with pytest.raises(InputError, match=r"a\.jsonl:3: ") as caught:
        list(read_jsonl(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": 1,\n', "column 9"),
        ('{"a": 1,  ', "column 9"),
        ('{"a" 1}', "column 6"),
        ('{\n"a": 1,\n"b" 2}', "line 3, column 5"),
        ('{\n"a": 1', "line 2, column 7"),
    ],
)
def test_invalid_json_is_placed_in_what_was_given(text: str, place: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_json_object(text, where="a.jsonl:7")
    assert str(caught.value).startswith("a.jsonl:7: not valid JSON (")
    assert str(caught.value).endswith(f", {place})")


def test_an_output_is_kept_apart_from_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "index").mkdir()
    (tmp_path / "link").symlink_to("a.run")
    inputs = {"--run": [None, Path("a.run")], "--index": ["index"]}
    for path in ("b.run", "a.run.gz", "indexed", "x/a.run"):
        check_apart(path, inputs)
    for path in ("a.run", "./index/../a.run", tmp_path / "a.run", "link"):
        with pytest.raises(InputError, match=r"is an input of .*\(--run\); give --csv another"):
            check_apart(path, inputs, option="--csv")
    with pytest.raises(InputError, match=r"index/x: is an input of this command \(--index\); "):
        check_apart("index/x", inputs)
    check_apart("index/x", inputs, is_folder=True)
    with pytest.raises(InputError, match=r"\(--run\)"):
        check_apart(tmp_path, inputs, is_folder=True)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such file"):
        read_json(tmp_path / "nowhere")
    with pytest.raises(InputError, match="a file is needed"):
        file_digest(tmp_path)


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_open(path) as file:
        file.write("first")
    with pytest.raises(KeyboardInterrupt), atomic_open(path) as file:
        file.write("second")
        raise KeyboardInterrupt
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_folder_leaves_the_earlier_folder_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with atomic_folder(path) as folder:
        (folder / "a").write_text("first")
    with pytest.raises(OSError, match="full"), atomic_folder(path) as folder:
        (folder / "a").write_text("second")
        raise OSError("disk full")
    assert (path / "a").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_files_in_a_folder_can_be_read_as_the_umask_says(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "weights").touch(mode=0o600)
    (tmp_path / "plain").touch()
    assert (tmp_path / "model" / "weights").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for name in ("old", "new"):
        with atomic_folder(path) as folder:
            (folder / name).write_text(name)
    assert [p.name for p in path.iterdir()] == ["new"]


def test_an_interrupt_between_the_renames_brings_the_earlier_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    with atomic_folder(path) as folder:
        (folder / "a").write_text("first")
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> None:
        if self.suffix == ".part":
            raise KeyboardInterrupt
        rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as folder:
        (folder / "a").write_text("second")
    assert (path / "a").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_names_what_was_to_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="full") as caught, atomic_open(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "full")
    assert caught.value.filename == str(tmp_path / "a.txt")
    for path in (tmp_path / "model", Path("model")):
        with pytest.raises(OSError, match="full") as caught, atomic_folder(path) as new:
            raise OSError(errno.ENOSPC, "full", str(new / "config.json"))
        assert caught.value.filename == str(path)


def test_a_target_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    check_target(tmp_path / "new" / "a.run")
    check_target(tmp_path / "file")
    check_target(tmp_path, is_folder=True)
    with pytest.raises(InputError, match=r"a file is to be written here, this is a folder"):
        check_target(tmp_path)
    with pytest.raises(InputError, match=r"a folder is to be written here, this is a file"):
        check_target(tmp_path / "file", is_folder=True)
    with pytest.raises(
        InputError, match=r"file/new/a.run: cannot be written, since .*file is a fi"
    ):
        check_target(tmp_path / "file" / "new" / "a.run")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match=r"may not be written to"):
        check_target(tmp_path / "a.run")
