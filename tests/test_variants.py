"""A model in one line is the model of its config with those fields changed, and a change that
would do nothing is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookbook_lib.calculators import presets
from cookbook_lib.calculators.configs import from_dict
from cookbook_lib.calculators.variants import letters, split


def test_a_line_without_changes_is_the_preset():
    assert presets.resolve("zamba2-2.7b") is presets.preset("zamba2-2.7b")


def test_changed_fields_give_the_model_of_the_changed_config():
    config = presets.entry("llama-3.1-8b")["config"]
    by_hand = from_dict(config | {"num_hidden_layers": 16, "hidden_size": 2048}, "by hand")
    in_a_line = presets.resolve("llama-3.1-8b,num_hidden_layers=16,hidden_size=2048")
    assert in_a_line.layout == by_hand.layout
    assert in_a_line.params() != presets.preset("llama-3.1-8b").params()


def test_a_list_may_be_a_value(tmp_path):
    types = json.dumps(["mamba", "hybrid", "mamba", "hybrid"])
    line = f"zamba2-2.7b,layers_block_type={types},num_hidden_layers=4"
    assert presets.resolve(line).pattern == "mAmB"


def test_a_file_may_be_changed_and_one_with_a_comma_in_its_name_is_a_file(tmp_path):
    config = presets.entry("zamba2-1.2b")["config"]
    for name in ("config.json", "a,b=c.json"):
        path = tmp_path / name
        path.write_text(json.dumps(config))
        assert presets.resolve(str(path)).params() == presets.preset("zamba2-1.2b").params()
    changed = presets.resolve(f"{tmp_path / 'config.json'},vocab_size=50000")
    assert changed.params() == presets.preset("zamba2-1.2b").params() + 18_000 * 2048


def test_a_pattern_keeps_the_letters_of_the_model():
    model = presets.resolve("zamba2-2.7b,pattern=(mmmmmA)*9")
    assert model.pattern == "mmmmmA" * 9
    assert model.layers == presets.preset("zamba2-2.7b").layers


@given(st.lists(st.tuples(st.text("mAB", min_size=1, max_size=4), st.integers(1, 5)), min_size=1))
def test_repetitions_are_written_out(groups):
    line = "".join(f"({part})*{n}" for part, n in groups)
    assert letters(line) == "".join(part * n for part, n in groups)


def test_repetitions_nest():
    assert letters("(m*3 A)*2 m") == "mmmAmmmAm"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("zamba2-2.7b,hiden_size=2048", "nothing reads 'hiden_size'"),
        ("zamba2-2.7b,mamba_d_state=big", "mamba_d_state is 'big'"),
        ("zamba2-2.7b,pattern=mmq", "pattern has 'q', expected only A, B, m"),
        ("zamba2-2.7b,pattern=(mm", "pattern has '('"),
        ("zamba2-2.7b,pattern=", "pattern is empty"),
        ("zamba2-2.7b,pattern=m*99999999", "expected 10,000 at most"),
        ("zamba2-2.7b,pattern=((m*999)*999)*999", "expected 10,000 at most"),
        ("nowhere/config.json,hidden_size=1", "nowhere/config.json: no such file"),
        ("zamba3,hidden_size=1", "no preset is called 'zamba3'"),
    ],
)
def test_what_cannot_be_is_one_line(line, said):
    with pytest.raises(ValueError) as error:
        presets.resolve(line)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_line_is_split_at_changes_only():
    assert split("a,b=1,c=[1, 2],d=x,y") == ("a", {"b": 1, "c": [1, 2], "d": "x,y"})
