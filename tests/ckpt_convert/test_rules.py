import numpy as np
import pytest

from ckpt_convert import bert, mamba
from ckpt_convert.rules import (
    SQUEEZE_CONV,
    TRANSPOSE,
    Rule,
    WeightTable,
    export_weights,
    import_weights,
)
from jaxrank.errors import InputError
from jaxrank.models.bert import BertConfig
from jaxrank.models.mamba import MambaConfig
from jaxrank.models.module import RerankerConfig, parameter_shapes

TABLE = WeightTable(
    rules=(
        Rule("layers.kernel", "block.{layer}.weight", TRANSPOSE),
        Rule("layers.conv", "block.{layer}.conv.weight", SQUEEZE_CONV),
        Rule("head.kernel", "score.weight", TRANSPOSE),
        Rule("head.bias", "score.bias"),
    ),
    renames=((r"^model\.", ""),),
    ignored=((r"lm_head\.weight", "not used"),),
    may_start_fresh=("head.",),
)
WANTED = {
    "layers.kernel": (2, 3, 4),
    "layers.conv": (2, 5, 2),
    "head.kernel": (3, 1),
    "head.bias": (1,),
}


def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    parameters = {
        path: random.normal(size=shape).astype(np.float32) for path, shape in WANTED.items()
    }
    return export_weights(TABLE, parameters)


def fill(given: dict[str, np.ndarray], table: WeightTable = TABLE):
    shapes = {name: array.shape for name, array in given.items()}
    return import_weights(table, shapes, given.__getitem__, wanted=WANTED, where="file")


def test_exporting_unstacks_layers_and_undoes_transforms():
    given = tensors()
    assert given["block.1.weight"].shape == (4, 3)
    assert given["block.0.conv.weight"].shape == (5, 1, 2)
    imported = fill(given)
    np.testing.assert_array_equal(
        imported.parameters["layers.kernel"][1], given["block.1.weight"].T
    )


def test_importing_then_exporting_gives_the_same_bits():
    given = tensors()
    again = export_weights(TABLE, fill(given).parameters)
    assert given.keys() == again.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(array, again[name])


def test_another_spelling_of_a_name_fills_the_same_parameter():
    given = {f"model.{name}": array for name, array in tensors().items()}
    assert fill(given).parameters["layers.kernel"].shape == (2, 3, 4)


def test_one_error_lists_missing_unused_twice_filled_and_wrong_shapes():
    given = tensors()
    given["model.score.bias"] = given["score.bias"]
    given["stranger"] = np.zeros(1)
    given["block.0.weight"] = np.zeros((4, 4))
    del given["block.0.conv.weight"], given["block.1.conv.weight"]
    with pytest.raises(InputError) as raised:
        fill(given)
    message = str(raised.value)
    assert message.startswith("file: ")
    assert "1 filled twice: score.bias by score.bias and model.score.bias" in message
    assert "2 missing: block.{0,1}.conv.weight" in message
    assert "block.0.weight is (4, 4), needs (4, 3)" in message
    assert "1 not used: stranger" in message


def test_nothing_is_read_while_names_or_shapes_do_not_fit():
    shapes = {name: array.shape for name, array in tensors().items()} | {"stranger": (10**12,)}

    def read(name: str) -> np.ndarray:
        raise AssertionError(f"read {name}")

    with pytest.raises(InputError, match="1 not used: stranger"):
        import_weights(TABLE, shapes, read, wanted=WANTED, where="file")


def test_ignored_names_are_reported_with_the_reason():
    imported = fill(tensors() | {"lm_head.weight": np.zeros(3)})
    assert imported.ignored == ("not used: lm_head.weight",)


def test_a_head_that_is_wholly_absent_starts_fresh():
    given = {name: array for name, array in tensors().items() if not name.startswith("score")}
    imported = fill(given)
    assert imported.missing == ("head.kernel", "head.bias")
    assert not imported.parameters.keys() & {"head.kernel", "head.bias"}


def test_half_a_head_is_an_error():
    given = tensors()
    del given["score.bias"]
    with pytest.raises(InputError, match=r"1 missing: score\.bias"):
        fill(given)


@pytest.mark.parametrize(
    ("table", "config"),
    [
        (bert.TABLES["linear"], RerankerConfig("bert", BertConfig())),
        (bert.TABLES["classification"], RerankerConfig("bert", BertConfig(), "classification")),
        (mamba.TABLES["linear"], RerankerConfig("mamba", MambaConfig(use_bias=True))),
    ],
)
def test_a_familys_table_names_exactly_the_modules_parameters(table, config):
    paths = [rule.ours for rule in table.rules]
    assert sorted(paths) == sorted(parameter_shapes(config))
    assert len({rule.theirs for rule in table.rules}) == len(table.rules)
