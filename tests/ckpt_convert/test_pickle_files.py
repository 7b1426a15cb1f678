"""pytorch_model.bin: what is sound is read to the bit; what is hostile is refused, and cheaply."""

import importlib.metadata
import io
import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ckpt_convert import pickle_files, pickle_worker
from ckpt_convert.pickle_files import opened_weights
from jaxrank.errors import InputError
from tests.ckpt_convert.hostile import Call, write_pickle


def sound_tensors() -> dict[str, torch.Tensor]:
    """Every type, and all that may lie about in a published file."""
    torch.manual_seed(0)
    shared = torch.randn(5, 4)
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    return {
        "shared": shared,
        "tied": shared,
        "transposed": torch.randn(3, 6).T,
        "a part": torch.randn(10, 4)[2:5],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "position_ids": torch.arange(7)[None],
        "mask": torch.ones(3, 3).tril().bool(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        **{str(dtype): torch.randn(3).to(dtype) for dtype in types},
    }


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def refuse(path: Path, tensors: object = None, **options: object) -> str:
    """Save, convert in this process, and give the reason for the refusal."""
    if tensors is not None:
        torch.save(tensors, path, **options)
    target = path.with_name("target.safetensors")
    try:
        pickle_worker.check_container(path)
        pickle_worker.convert(path, target)
    except Exception as error:  # as in the process that does it
        line = pickle_worker.reason(error)
    else:
        pytest.fail("was converted")
    assert not target.exists()
    assert "\n" not in line
    assert len(line) < 400
    return line


@pytest.mark.parametrize("is_new", [True, False])
def test_every_tensor_keeps_type_shape_and_bits(tmp_path, is_new):
    tensors = sound_tensors()
    path = tmp_path / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=is_new)
    pickle_worker.check_container(path)
    pickle_worker.convert(path, tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert set(file.keys()) == set(tensors)
        for name, tensor in tensors.items():
            read = file.get_tensor(name)
            assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape)
            assert bits(read) == bits(tensor)


def test_a_pickle_is_read_where_it_is_allowed_and_leaves_nothing_behind(tmp_path, monkeypatch):
    temporary, folder = tmp_path / "temporary", tmp_path / "model"
    temporary.mkdir(), folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    # What a user may have set for other programs does not reach the process that reads.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    values = torch.randn(3, 4)
    torch.save({"a": values, "ids": torch.arange(3)}, folder / "pytorch_model.bin")
    with opened_weights(folder, allow_pickle=True) as weights:
        np.testing.assert_array_equal(weights.read("a"), values.numpy())
        assert weights.shapes == {"a": (3, 4), "ids": (3,)}
        assert weights.where == folder / "pytorch_model.bin"
        assert weights.files == (folder / "pytorch_model.bin",)
        with pytest.raises(InputError, match=r"model/pytorch_model\.bin: tensor 'ids': dtype I64"):
            weights.read("ids")
        assert temporary in weights.folder.parents
    assert not list(temporary.iterdir())
    assert [path.name for path in folder.iterdir()] == ["pytorch_model.bin"]


def test_shards_are_joined_by_their_index(tmp_path):
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    torch.save({"a": torch.ones(2)}, tmp_path / names[0])
    torch.save({"b": torch.zeros(3, 1)}, tmp_path / names[1])
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(
        json.dumps({"metadata": {}, "weight_map": dict(zip("ab", names, strict=True))})
    )
    with opened_weights(tmp_path, allow_pickle=True) as weights:
        assert weights.shapes == {"a": (2,), "b": (3, 1)}
        assert weights.where == index
        assert [path.name for path in weights.files] == names
    index.write_text(json.dumps({"weight_map": {"a": names[0], "c": names[1]}}))
    with (
        pytest.raises(InputError, match=rf"{names[1]}: index and file disagree about 'b', 'c'"),
        opened_weights(tmp_path, allow_pickle=True),
    ):
        pass


@pytest.mark.parametrize("name", ["../a.bin", "/etc/a.bin", "sub/a.bin", "a.safetensors", "", 3])
def test_an_index_cannot_name_files_elsewhere(tmp_path, name):
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with (
        pytest.raises(InputError, match=r"is not a plain \*\.bin name in this folder"),
        opened_weights(tmp_path, allow_pickle=True),
    ):
        pass


def test_a_pickle_that_is_not_allowed_is_refused_with_the_option(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even looked at")
    with (
        pytest.raises(InputError, match=r"pytorch_model\.bin: is a pickle.*--allow-pickle"),
        opened_weights(tmp_path),
    ):
        pass


def test_safetensors_win_over_a_pickle(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even looked at")
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    with opened_weights(tmp_path, allow_pickle=True) as weights:
        assert weights.files == (tmp_path / "model.safetensors",)


@pytest.mark.parametrize(("version", "found"), [("2.9.1+cpu", "2.9.1"), (None, "none")])
def test_an_old_or_missing_pytorch_is_named(tmp_path, monkeypatch, version, found):
    def look_up(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(pickle_files.metadata, "version", look_up)
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    message = rf"PyTorch 2\.10 or newer is needed to read it safely, found {found}"
    with pytest.raises(InputError, match=message), opened_weights(tmp_path, allow_pickle=True):
        pass


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch MARK",), "posix.system"),
        (eval, ("open('MARK', 'w')",), "eval"),
        (exec, ("open('MARK', 'w')",), "exec"),
        (getattr, ("", "join"), "getattr"),
        (shutil.rmtree, (".",), "shutil.rmtree"),
        (torch.hub.load, ("owner/name", "model"), "torch.hub.load"),
        (torch.load, ("MARK",), "torch.serialization.load"),
        (io.open, ("MARK", "w"), "io.open"),
    ],
)
@pytest.mark.parametrize("is_new", [True, False])
def test_a_pickle_that_calls_a_function_is_refused_by_its_name(
    tmp_path, monkeypatch, function, arguments, name, is_new
):
    monkeypatch.chdir(tmp_path)
    hostile = {"a": torch.ones(2), "b": Call(function, *arguments)}
    path = tmp_path / "pytorch_model.bin"
    line = refuse(path, hostile, _use_new_zipfile_serialization=is_new)
    assert line == f"refers to {name}, and only tensors are read; refused"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("is_new", [True, False])
def test_a_view_larger_than_its_storage_is_refused(tmp_path, is_new):
    path = tmp_path / "pytorch_model.bin"
    huge = {"a": torch.zeros(1).expand(10**6, 10**6)}
    line = refuse(path, huge, _use_new_zipfile_serialization=is_new)
    assert line == (
        "tensor 'a': claims 1000000000000 numbers (4000000000000 bytes), the file stores 4 bytes "
        "of it"
    )
    assert path.stat().st_size < 2_000


def test_many_names_for_one_tensor_are_refused(tmp_path):
    values = torch.zeros(10_000)
    line = refuse(tmp_path / "x.bin", {str(index): values for index in range(100)})
    assert line.startswith("tensors claim 4000000 bytes, the file has ")


def test_compressed_members_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1 << 16)}, tmp_path / "stored.bin")
    with (
        zipfile.ZipFile(tmp_path / "stored.bin") as stored,
        zipfile.ZipFile(tmp_path / "x.bin", "w", zipfile.ZIP_DEFLATED) as deflated,
    ):
        for member in stored.namelist():
            deflated.writestr(member, stored.read(member))
    assert (tmp_path / "x.bin").stat().st_size < 4_000
    assert "is compressed, which torch.save never does" in refuse(tmp_path / "x.bin")


def test_members_that_share_their_bytes_are_refused(tmp_path):
    path = tmp_path / "x.bin"
    write_pickle(path, b"}.", storage=bytes(1_000))
    with zipfile.ZipFile(path, "a") as archive:
        info = archive.getinfo("archive/data/0")
        archive.filelist += [info] * 20
        archive._didModify = True
    assert refuse(path) == "its members overlap"


def test_a_pickle_part_of_megabytes_is_refused(tmp_path):
    write_pickle(tmp_path / "x.bin", b"\x80\x02" + b"]0" * (1 << 20) + b"}.")
    assert "member 'archive/data.pkl' has 2097156 bytes; no model" in refuse(tmp_path / "x.bin")


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ([torch.ones(2)], "holds a list; a dict of tensors is needed"),
        (torch.ones(2), "holds a Tensor; a dict of tensors is needed"),
        ({"state_dict": {"a": torch.ones(2)}}, "'state_dict' is a dict; a plain dict of tensors"),
        ({"epoch": 3}, "'epoch' is a int; a plain dict of tensors"),
        ({3: torch.ones(2)}, "'3' is a Tensor; a plain dict of tensors"),
        ({"a": torch.eye(3).to_sparse()}, "tensor 'a': quantised, sparse or of a kind"),
        (
            {"a": torch.ones(2, dtype=torch.complex64)},
            "that is not read (torch.complex64)",
        ),
        ({"a": torch.ones(2, device="meta")}, "tensor 'a': quantised, sparse or of a kind"),
    ],
)
def test_what_is_no_dict_of_plain_tensors_is_refused(tmp_path, held, said):
    assert said in refuse(tmp_path / "x.bin", held)


@pytest.mark.parametrize("size", [0, 3, 100, 500, 600])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_truncated_file_is_refused(tmp_path, size, is_new):
    path = tmp_path / "x.bin"
    torch.save({"a": torch.randn(8, 8)}, path, _use_new_zipfile_serialization=is_new)
    content = path.read_bytes()
    assert size < len(content)
    path.write_bytes(content[:size])
    assert refuse(path).startswith("damaged, or no file of torch.save")
