"""Generation writes what transformers' would, in text and in tokens, and `cookbook generate` shows
it as it comes."""

import json
import subprocess
import sys
import warnings

import pytest
import torch
from tiny import one_thread, write  # noqa: F401 (a fixture)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from cookbook_lib.blocks.checkpoint import load_checkpoint
from cookbook_lib.cli import main
from cookbook_lib.decoding.generation import generate
from cookbook_lib.decoding.sampling import Sampling
from cookbook_lib.decoding.text import ends, load_tokenizer, pieces

GREEDY = Sampling(temperature=0.0)
ROUND = "né 中 ok"  # characters of one, two and three bytes


def letters() -> Tokenizer:
    """A tokenizer whose tokens are bytes: those that the tests write, and an end of text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    mark = pre_tokenizers.ByteLevel(add_prefix_space=False)
    wanted = [x for word, _ in mark.pre_tokenize_str(ROUND + "abcdefghijklm ") for x in word]
    known = list(dict.fromkeys(wanted)) + [x for x in alphabet if x not in wanted]
    vocab = {x: i for i, x in enumerate(known[:60])} | {"<end>": 60}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = mark, decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zamba2")
    write("zamba2 two blocks, rope", folder)
    letters().save(str(folder / "tokenizer.json"))
    return folder


def draw(b: int, l: int) -> torch.Tensor:
    return torch.randint(3, 60, (b, l), generator=torch.Generator().manual_seed(l))


def written(*args, **options) -> torch.Tensor:
    return torch.stack(list(generate(*args, **options)), 1)


@pytest.mark.parametrize("name", ["zamba2 two blocks, rope", "jamba", "mistral", "mamba2"])
def test_greedy_is_that_of_transformers(name, tmp_path):
    theirs, tokens = write(name, tmp_path), draw(2, 9)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, :3] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on its own options
        want = theirs.generate(
            tokens,
            attention_mask=mask.long(),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=None,
        )
    got = written(load_checkpoint(tmp_path), tokens, 12, GREEDY, mask=mask)
    assert torch.equal(got, want[:, 9:])
    assert len(got.unique()) > 6  # no model that says one thing


def test_stop_tokens_end_a_sequence(folder):
    model, tokens = load_checkpoint(folder), draw(2, 5)
    how = Sampling(temperature=2.0)  # greedy soon repeats itself
    free = written(model, tokens, 10, how)
    stop = (free[0, 2].item(),)
    assert stop[0] not in free[0, :2] and stop[0] not in free[1]
    got = written(model, tokens, 10, how, stop=stop)
    assert torch.equal(got[0, :3], free[0, :3]) and (got[0, 2:] == stop[0]).all()
    assert torch.equal(got[1, :3], free[1, :3]) and got.shape[1] == 10
    alone = written(model, tokens[:1], 10, GREEDY)
    stop = (alone[0, 0].item(),)
    assert written(model, tokens[:1], 10, GREEDY, stop=stop).tolist() == [[*stop]]
    assert written(model, tokens, 1, GREEDY).shape == (2, 1)


def test_a_seed_says_it_all(folder):
    model, tokens = load_checkpoint(folder), draw(1, 5)
    one, same, other = (written(model, tokens, 12, seed=s) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_says_what_is_wrong(folder, tmp_path):
    model = load_checkpoint(folder)
    with pytest.raises(ValueError, match="max_tokens is 0, expected at least 1"):
        next(generate(model, draw(1, 5), 0))
    with pytest.raises(ValueError, match="the prompt has no tokens"):
        next(generate(model, draw(1, 0), 3))
    with pytest.raises(ValueError, match="no tokenizer.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer.json: not a tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"eos_token_id": "</s>"}')
    with pytest.raises(ValueError, match="eos_token_id is '</s>', expected a token"):
        ends(tmp_path)


def test_text_comes_in_whole_characters():
    tokenizer = letters()
    ids = tokenizer.encode(ROUND).ids
    assert len(ids) > len(ROUND)
    got = list(pieces(tokenizer, [*ids, 60]))
    assert "".join(got) == ROUND and "�" not in "".join(got)
    assert got[:3] == ["n", "é", " "]


def test_ends(folder, tmp_path):
    assert ends(folder) == (2,)  # transformers' default for Zamba2, in generation_config.json
    assert ends(tmp_path) == ()
    (tmp_path / "config.json").write_text('{"eos_token_id": [4, 5]}')
    assert ends(tmp_path) == (4, 5)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 6}')
    assert ends(tmp_path) == (6,)


def run(folder, *args, capsys):
    main(["generate", str(folder), "--prompt", "abc", *args])
    return capsys.readouterr()


def test_the_command_prints_the_text(folder, capsys):
    args = ("--max-tokens", "9", "--temperature", "1.5", "--top-k", "40", "--seed", "3")
    said = run(folder, *args, capsys=capsys)
    document = json.loads(run(folder, *args, "--json", capsys=capsys).out)
    assert document["text"] + "\n" == said.out
    assert "tokens; the first after" in said.err
    assert document["prompt_tokens"] == 3 and 1 <= len(document["tokens"]) <= 9
    tokenizer = letters()
    assert document["text"] == "".join(pieces(tokenizer, document["tokens"]))
    other = json.loads(run(folder, *args[:-1], "4", "--json", capsys=capsys).out)
    assert other["tokens"] != document["tokens"]


@pytest.mark.parametrize(
    "args, line",
    [
        (("--top-p", "0"), "top_p is 0.0, expected above 0"),
        (("--max-tokens", "0"), "max_tokens is 0, expected at least 1"),
        (("--prompt", ""), "the prompt has no tokens"),
        (("--device", "abacus"), "device is 'abacus', expected cpu or cuda"),
        (("--dtype", "int3"), "invalid choice 'int3'"),
    ],
)
def test_the_command_says_what_is_wrong(args, line, folder, capsys):
    with pytest.raises(SystemExit) as end:
        run(folder, *args, capsys=capsys)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1


def test_other_commands_start_without_torch():
    code = (
        "import sys; from cookbook_lib.cli import main, parse\n"
        "main(['models', '--json']); parse(['generate', 'x', '--prompt', 'y'])\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
