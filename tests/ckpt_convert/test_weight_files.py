import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ckpt_convert import weight_files
from ckpt_convert.load import load
from ckpt_convert.weight_files import open_weights, write_weights
from jaxrank.errors import InputError
from tests.ckpt_convert.hostile import write_raw


def entry(start: int, stop: int, shape: tuple[int, ...], dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type_becomes_float32_without_loss(tmp_path, dtype):
    values = torch.randn(3, 5).to(dtype)
    values[0, 0] = torch.finfo(torch.float16).tiny
    save_file({"a": values, "b": torch.zeros(7, 2)}, tmp_path / "model.safetensors")
    weights = open_weights(tmp_path)
    assert weights.shapes == {"a": (3, 5), "b": (7, 2)}
    assert weights.read("a").dtype == np.float32
    np.testing.assert_array_equal(weights.read("a"), values.float().numpy())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nan_and_infinity_are_refused_by_name(tmp_path, bad, dtype):
    values = torch.zeros(4, 4, dtype=dtype)
    values[1, 2] = bad
    save_file({"fine": torch.ones(2), "layer.3.weight": values}, tmp_path / "model.safetensors")
    weights = open_weights(tmp_path)
    weights.read("fine")
    with pytest.raises(InputError, match=r"'layer.3.weight': 1 of 16 values are NaN or infinite"):
        weights.read("layer.3.weight")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_other_types_are_refused_by_name_when_they_are_wanted(tmp_path, dtype):
    save_file({"ids": torch.zeros(3).to(dtype)}, tmp_path / "model.safetensors")
    weights = open_weights(tmp_path)
    assert weights.shapes == {"ids": (3,)}
    with pytest.raises(InputError, match="tensor 'ids': dtype"):
        weights.read("ids")


@pytest.mark.parametrize(
    ("name", "dtype", "said"),
    [
        ("layer.0.query.weight", torch.int8, "I8"),
        ("layer.0.query.weight", torch.float8_e4m3fn, "F8_E4M3"),
        ("layer.0.query.weight", torch.float8_e5m2, "F8_E5M2"),
        ("layer.0.query.weight", torch.uint8, "U8"),
        ("layer.0.query.qweight", torch.int32, "I32"),
    ],
)
def test_quantised_weights_are_refused_by_name(tmp_path, name, dtype, said):
    tensors = {"a": torch.ones(2), name: torch.zeros(4, 2).to(dtype)}
    save_file(tensors, tmp_path / "model.safetensors")
    message = f"tensor '{name}': dtype {said}; quantised weights are not read"
    with pytest.raises(InputError, match=message):
        open_weights(tmp_path)


@pytest.mark.parametrize("size", [0, 4, 8, 40, 300])
def test_a_truncated_file_is_refused(tmp_path, size):
    save_file({"a": torch.randn(8, 8)}, tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[:size])
    with pytest.raises(InputError, match=r"model\.safetensors: "):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(0, 16, (4,)), "b": entry(8, 24, (4,))},
        {"a": entry(0, 16, (2**40, 2**40))},
        {"a": entry(0, 4_000, (1_000,))},
        {"a": entry(16, 0, (4,))},
        {"a": {"dtype": "F32", "shape": [4]}},
        {"a": []},
        b"[1, 2]",
        b'{"a": ',
        b"\xff\xfe",
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
        b'"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
        b"[" * 100_000,
    ],
    ids=[
        "overlap",
        "overflow",
        "beyond the end",
        "negative size",
        "no offsets",
        "list for entry",
        "list for header",
        "broken JSON",
        "no text",
        "a name twice",
        "deep nesting",
    ],
)
def test_a_hostile_header_is_refused(tmp_path, header):
    write_raw(tmp_path, header, b"\0" * 24)
    with pytest.raises(InputError, match="damaged, or not a safetensors file"):
        open_weights(tmp_path)


def test_a_header_that_claims_gigabytes_is_not_read(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(InputError, match="header claims 4611686018427387904 bytes"):
        open_weights(tmp_path)


def test_too_many_tensors_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_files, "MAX_TENSORS", 10)
    write_raw(tmp_path, {str(index): entry(0, 0, (0,)) for index in range(11)})
    with pytest.raises(InputError, match="11 tensors; at most 10"):
        open_weights(tmp_path)


def test_too_many_tensors_in_an_index_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(weight_files, "MAX_TENSORS", 10)
    write_index(tmp_path, {str(index): "x.safetensors" for index in range(11)})
    with pytest.raises(InputError, match=r"index\.json: 11 tensors; at most 10"):
        open_weights(tmp_path)


def test_a_name_that_looks_like_a_path_is_only_a_name(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"../../x": torch.ones(2)}, folder / "model.safetensors")
    np.testing.assert_array_equal(open_weights(folder).read("../../x"), np.ones(2))
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "model.safetensors"]


def write_index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_an_index_joins_its_files(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "model-00002-of-00002.safetensors")
    write_index(
        tmp_path,
        {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    )
    weights = open_weights(tmp_path)
    assert weights.shapes == {"a": (2,), "b": (3,)}
    np.testing.assert_array_equal(weights.read("b"), np.zeros(3))


@pytest.mark.parametrize(
    "name",
    ["../a.safetensors", "/etc/a.safetensors", "sub/a.safetensors", "..", "a.bin", "", 3, None],
)
def test_an_index_cannot_name_files_elsewhere(tmp_path, name):
    write_index(tmp_path, {"a": name})
    with pytest.raises(InputError, match=r"is not a plain \*\.safetensors name"):
        open_weights(tmp_path)


def test_an_index_that_disagrees_with_its_file_is_refused(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    write_index(tmp_path, {"a": "x.safetensors", "b": "x.safetensors"})
    with pytest.raises(InputError, match="index and file disagree about 'b'"):
        open_weights(tmp_path)
    write_index(tmp_path, {"a": "x.safetensors", "b": "y.safetensors"})
    with pytest.raises(InputError, match=r"names y\.safetensors, which is not in the folder"):
        open_weights(tmp_path)
    write_index(tmp_path, ["x.safetensors"])
    with pytest.raises(InputError, match="'weight_map' must map"):
        open_weights(tmp_path)


def test_a_folder_without_weights_says_what_is_needed(tmp_path):
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        open_weights(tmp_path)


def test_a_full_disk_is_an_os_error_that_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No such file") as raised:
        write_weights(tmp_path / "gone", {"a": np.ones(2, np.float32)})
    assert raised.value.filename == str(tmp_path / "gone" / "model.safetensors")


def test_written_weights_carry_pytorchs_mark(tmp_path):
    from safetensors import safe_open

    write_weights(tmp_path, {"a": np.ones((2, 3), np.float32)})
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert torch.equal(file.get_tensor("a"), torch.ones(2, 3))


def test_an_adapter_beside_whole_weights_is_refused_with_what_to_do(checkpoint):
    """It is not clear whether it is in them already."""
    both = checkpoint("bert-bare")
    (both / "adapter_config.json").write_text('{"base_model_name_or_path": "x/y"}')
    with pytest.raises(InputError, match=r"adapter_config\.json: an adapter.*merge it first: "):
        load(both)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"auto_map": {"AutoModel": "modeling.Evil"}}, "auto_map: names code of its own"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config: quantised"),
        ({"adapters": {"adapters": {"a": {}}}}, "adapters: adapters are not merged"),
        ({"_attn_implementation_internal": "owner/kernel"}, "unknown to this family"),
        ({"custom_pipelines": {"text": {"impl": "modeling.Evil"}}}, "unknown to this family"),
    ],
)
def test_a_config_that_names_code_or_other_weights_runs_nothing(
    checkpoint, tmp_path, monkeypatch, attributes, said
):
    folder = shutil.copytree(checkpoint("bert-bare"), tmp_path / "model")
    monkeypatch.chdir(folder)
    (folder / "modeling.py").write_text("open('MARK', 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | attributes))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as raised:
        load(folder)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(tmp_path.rglob("*")) == before
