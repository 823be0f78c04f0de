"""Weights come from safetensors, one tensor at a time, whatever spelling the checkpoint has; what
does not fit is named in one line, and pickles are refused."""

import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import one_thread, write  # noqa: F401 (a fixture)

from cookbook_lib.blocks import checkpoint
from cookbook_lib.blocks.checkpoint import load_checkpoint

TOKENS = torch.randint(3, 61, (1, 9), generator=torch.Generator().manual_seed(0))


def edit(folder: Path, change) -> None:
    """Change the tensors of a checkpoint in one file."""
    file = folder / "model.safetensors"
    tensors = {k: t.clone() for k, t in load_file(file).items()}
    change(tensors)
    save_file(tensors, file)


def reconfigure(folder: Path, **fields) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


@torch.no_grad()
def agrees(theirs, folder: Path) -> bool:
    want, got = theirs(TOKENS, use_cache=False).logits, load_checkpoint(folder)(TOKENS)
    return ((got - want).abs().max() / want.abs().max()).item() < 1e-5


def test_shards(tmp_path):
    theirs = write("mixtral", tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    assert agrees(theirs, tmp_path)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wanted", [None, torch.bfloat16, torch.float16, torch.float64])
def test_every_parameter_has_the_dtype_asked_for(stored, wanted, tmp_path):
    write("jamba", tmp_path)
    edit(tmp_path, lambda tensors: tensors.update({k: t.to(stored) for k, t in tensors.items()}))
    reconfigure(tmp_path, dtype=None)
    model = load_checkpoint(tmp_path, wanted)
    assert {p.dtype for p in model.parameters()} == {wanted or stored}
    assert not model.training and all(p.requires_grad for p in model.parameters())
    reconfigure(tmp_path, torch_dtype="float16")
    assert {p.dtype for p in load_checkpoint(tmp_path).parameters()} == {torch.float16}


@pytest.mark.gpu
def test_straight_to_the_gpu(tmp_path):
    write("zamba2", tmp_path)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model = load_checkpoint(tmp_path, torch.bfloat16, "cuda")
    held = sum(p.nbytes for p in model.parameters())
    largest = max(p.numel() * 4 for p in model.parameters())
    blocks = 512 * sum(1 for _ in model.parameters())  # the allocator's granularity
    assert torch.cuda.max_memory_allocated() - before <= held + largest + blocks


class Watched:
    """A safetensors file that counts how many of the tensors it gave are still alive."""

    given: list[weakref.ref] = []

    def __init__(self, file, **options):
        self.file = checkpoint_safe_open(file, **options)

    def __enter__(self):
        self.tensors = self.file.__enter__()
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)

    def get_tensor(self, name):
        assert not [ref for ref in self.given if ref() is not None]
        tensor = self.tensors.get_tensor(name)
        self.given.append(weakref.ref(tensor))
        return tensor


checkpoint_safe_open = checkpoint.safe_open


def test_at_most_one_stored_tensor_is_alive_beside_the_model(tmp_path, monkeypatch):
    write("mixtral", tmp_path)
    monkeypatch.setattr(checkpoint, "safe_open", Watched)
    monkeypatch.setattr(Watched, "given", [])
    load_checkpoint(tmp_path, torch.bfloat16)
    assert len(Watched.given) == len(load_file(tmp_path / "model.safetensors"))


def test_weights_that_fit_are_not_copied_at_all(tmp_path):
    """In the dtype of the file, the parameters lie in memory as in the file, side by side: they
    are views of it."""
    write("llama", tmp_path)
    places = [(p.data_ptr(), p.nbytes) for p in load_checkpoint(tmp_path).parameters()]
    begin, end = min(at for at, _ in places), max(at + n for at, n in places)
    assert end - begin == sum(n for _, n in places)


def test_what_does_not_fit_is_named_in_one_line_and_nothing_is_read(tmp_path, monkeypatch):
    write("mixtral", tmp_path)

    def spoil(tensors):
        del tensors["model.norm.weight"]
        del tensors["model.layers.0.block_sparse_moe.experts.3.w1.weight"]
        tensors["model.layers.7.extra.weight"] = torch.zeros(2)
        name = "model.layers.1.block_sparse_moe.experts.2.w2.weight"
        tensors[name] = tensors[name].T.contiguous()
        tensors["lm_head.weight"] = torch.zeros(2, 3)

    edit(tmp_path, spoil)
    monkeypatch.setattr(checkpoint, "read", None)
    with pytest.raises(ValueError) as caught:
        load_checkpoint(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: the weights do not fit config.json: "
        "2 missing (model.layers.0.mlp.experts.gate_up_proj, model.norm.weight); "
        "1 not expected (model.layers.7.extra.weight); "
        "2 of another shape (lm_head.weight is [2, 3], expected [61, 24], "
        "model.layers.1.block_sparse_moe.experts.2.w2.weight is [40, 24], expected [24, 40])"
    )


def test_copies_of_shared_weights_must_be_equal(tmp_path):
    theirs = write("zamba2 two blocks, rope", tmp_path)
    first, later = "model.layers.1.shared_transformer.", "model.layers.4.shared_transformer."
    copies = {"lm_head.weight": "model.embed_tokens.weight"}

    def copy(tensors):
        shared = [k for k in tensors if k.startswith(first)]
        assert len(shared) == 12
        copies.update({k.replace(first, later): k for k in shared})
        tensors.update({k: tensors[old].clone() for k, old in copies.items()})

    edit(tmp_path, copy)
    assert agrees(theirs, tmp_path)
    for name in "lm_head.weight", later + "self_attn.q_proj.weight":
        edit(tmp_path, lambda tensors, name=name: tensors[name].add_(1))
        with pytest.raises(ValueError, match=f"{name} is not equal to {copies[name]}, expected"):
            load_checkpoint(tmp_path)
        edit(tmp_path, lambda tensors, name=name: tensors[name].copy_(tensors[copies[name]]))


def test_what_is_known_to_be_of_no_use_is_left_out(tmp_path):
    """Zyphra's LoRA pairs for uses of the other block; the positions' speeds in old Llamas."""
    theirs = write("zamba2 two blocks, rope", tmp_path)
    lists = "model.layers.1.shared_transformer.feed_forward.gate_up_proj_adapter_list"

    def add(tensors):
        assert f"{lists}.0.0.weight" in tensors and f"{lists}.1.0.weight" not in tensors
        tensors[f"{lists}.1.0.weight"] = torch.zeros(3, 24)
        tensors[f"{lists}.1.1.weight"] = torch.zeros(80, 3)
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(3)

    edit(tmp_path, add)
    assert agrees(theirs, tmp_path)


def test_an_older_name_of_the_embedding(tmp_path):
    theirs = write("mamba", tmp_path)
    old, new = "backbone.embedding.weight", "backbone.embeddings.weight"
    edit(tmp_path, lambda tensors: tensors.update({old: tensors.pop(new)}))
    assert agrees(theirs, tmp_path)


@pytest.mark.parametrize("version", ["Mamba1", "Mamba2"])
def test_the_format_of_mamba_ssm(version, tmp_path):
    """The same weights under a native config."""
    name = {"Mamba1": "mamba", "Mamba2": "mamba2"}[version]
    theirs = write(name, tmp_path, {"layer_norm_epsilon": 1e-5})
    old, new = "backbone.embeddings.weight", "backbone.embedding.weight"
    edit(tmp_path, lambda tensors: tensors.update({new: tensors.pop(old)}))
    sizes = {
        "Mamba1": {"layer": "Mamba1", "d_state": 5},
        "Mamba2": {"layer": "Mamba2", "d_state": 8, "headdim": 8, "chunk_size": 4},
    }
    config = {
        "d_model": 24,
        "n_layer": 3,
        "vocab_size": 61,
        "pad_vocab_size_multiple": 1,
        "tie_embeddings": name == "mamba",
        "ssm_cfg": sizes[version],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert agrees(theirs, tmp_path)


def test_pickles_are_refused(tmp_path):
    write("llama", tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickled \(pytorch_model.bin\).*can run any code") as e:
        load_checkpoint(tmp_path)
    assert "\n" not in str(e.value)


def test_says_what_is_wrong_with_the_files(tmp_path):
    with pytest.raises(ValueError, match="no such file, expected a config.json or its folder"):
        load_checkpoint(tmp_path / "nowhere")
    write("llama", tmp_path)
    file, index = tmp_path / "model.safetensors", tmp_path / "model.safetensors.index.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="model.safetensors: not a safetensors file"):
        load_checkpoint(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="no weights, expected model.safetensors or"):
        load_checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    with pytest.raises(ValueError, match="one.safetensors, two.safetensors missing, which"):
        load_checkpoint(tmp_path)
    index.write_text("[]")
    with pytest.raises(ValueError, match="not an index"):
        load_checkpoint(tmp_path)
    index.unlink()
    file.write_bytes(whole)
    reconfigure(tmp_path, dtype="int3")
    with pytest.raises(ValueError, match="dtype is 'int3', expected one of float64"):
        load_checkpoint(tmp_path)
