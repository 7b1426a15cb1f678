import numpy as np
import pytest

from ckpt_convert.architectures import ARCHITECTURES
from ckpt_convert.rules import (
    SQUEEZE_CONV,
    TRANSPOSE,
    Rule,
    WeightTable,
    export_weights,
    import_weights,
)
from jaxrank.errors import InputError
from jaxrank.models.families import get_family
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


def fill(given: dict[str, np.ndarray], table: WeightTable = TABLE, wanted=WANTED):
    shapes = {name: array.shape for name, array in given.items()}
    return import_weights(table, shapes, given.__getitem__, wanted=wanted, where="file")


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


def test_an_error_names_six_tensors_and_counts_the_rest_however_deep_the_model():
    """A config.json of a thousand layers came with 8,982 names in one line."""
    kinds = "abcdefghi"
    rules = tuple(Rule(f"layers.{kind}", f"block.{{layer}}.{kind}") for kind in kinds)
    wanted = {f"layers.{kind}": (1000, 3) for kind in kinds}
    given = {f"block.{layer}.{kind}": np.zeros(3) for kind in kinds for layer in (0, 1, 5)}
    given |= {f"block.{layer}.{kind}": np.zeros(2) for kind in kinds for layer in (7, 8, 9)}
    given |= {f"stranger-{number}": np.zeros(1) for number in range(50)}
    with pytest.raises(InputError) as raised:
        fill(given, WeightTable(rules), wanted)
    message = str(raised.value)
    listed = ", ".join(f"block.{{2..4,6,10..999}}.{kind}" for kind in "abcdef")
    assert f"8946 missing: {listed} and 2982 more; " in message
    assert "27 wrong shape: block.{7..9}.a is (2,), needs (3,); block.{7..9}.b is" in message
    assert "block.{7..9}.f is (2,), needs (3,) and 9 more; 50 not used: stranger-0, " in message
    assert "stranger-13 and 44 more; the weights" in message
    assert len(message) < 1000


def test_numbers_that_never_follow_each_other_are_cut_short_too():
    given = tensors() | {f"extra.{number}.w": np.zeros(1) for number in range(0, 40, 2)}
    with pytest.raises(
        InputError, match=r"20 not used: extra\.\{0,2,4,6,8,10,\.\.\. \(14"
    ) as raised:
        fill(given)
    assert len(str(raised.value)) < 150
    odd = f"extra.{'9' * 5000}.w", "extra.007.w"  # Python refuses to read the first as a number
    with pytest.raises(InputError, match=r"2 not used: extra\.007\.w, extra\.999"):
        fill(tensors() | {name: np.zeros(1) for name in odd})


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


def test_layers_may_be_counted_from_one():
    table = WeightTable((Rule("layers.norm", "block.{layer}.norm.weight", first_layer=1),))
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    given = export_weights(table, {"layers.norm": values})
    assert list(given) == ["block.1.norm.weight", "block.2.norm.weight"]
    np.testing.assert_array_equal(given["block.2.norm.weight"], values[1])
    imported = fill(given, table, {"layers.norm": (2, 3)})
    np.testing.assert_array_equal(imported.parameters["layers.norm"], values)
    given["block.0.norm.weight"] = given["block.1.norm.weight"]
    with pytest.raises(InputError, match=r"1 not used: block\.0\.norm\.weight"):
        fill(given, table, {"layers.norm": (2, 3)})


TIED = WeightTable(
    rules=(Rule("embedding", "shared.weight"),),
    renames=((r"^model\.", ""),),
    tied=(("encoder.weight", "shared.weight"), ("decoder.weight", "shared.weight")),
)
SHARED = np.array([[1.0, -0.0], [2.0, 3.0]], np.float32)


@pytest.mark.parametrize(
    "names",
    [
        ["shared.weight"],
        ["encoder.weight"],
        ["model.decoder.weight"],
        ["decoder.weight", "encoder.weight"],
        ["decoder.weight", "shared.weight", "encoder.weight"],
    ],
)
def test_tied_tensors_fill_one_parameter_under_any_of_their_names(names):
    imported = fill({name: SHARED.copy() for name in names}, TIED, {"embedding": (2, 2)})
    np.testing.assert_array_equal(imported.parameters["embedding"], SHARED)
    assert imported.ignored == ()
    assert list(export_weights(TIED, imported.parameters)) == ["shared.weight"]


@pytest.mark.parametrize("other", [np.abs(SHARED), SHARED + 1e-6, SHARED[:1]])
@pytest.mark.parametrize("canonical", ["shared.weight", "encoder.weight"])
def test_tied_tensors_that_differ_by_a_bit_are_an_error_naming_both(canonical, other):
    message = rf"^file: model.decoder.weight and {canonical} differ"
    with pytest.raises(InputError, match=message):
        fill({canonical: SHARED, "model.decoder.weight": other}, TIED, {"embedding": (2, 2)})


def test_a_missing_tied_tensor_is_reported_by_its_canonical_name():
    with pytest.raises(InputError, match=r"1 missing: shared\.weight"):
        fill({}, TIED, {"embedding": (2, 2)})


@pytest.mark.parametrize(
    ("family", "head"),
    [(family, head) for family, entry in ARCHITECTURES.items() for head in entry.tables],
)
def test_a_table_has_one_rule_for_every_parameter_of_a_module(family, head):
    tiny = get_family(family).presets[f"{family.replace('_', '-')}-tiny"]
    wanted = parameter_shapes(RerankerConfig(family, tiny, head))
    used = [rule for rule in ARCHITECTURES[family].tables[head].rules if rule.ours in wanted]
    assert sorted(rule.ours for rule in used) == sorted(wanted)
    assert len({rule.theirs for rule in used}) == len(used)
