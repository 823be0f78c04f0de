"""The corpus of the installed Python is the same each time, is whole or not there, and keeps apart
what it holds out."""

from zlib import crc32

import pytest

from cookbook_lib.data import python_corpus as corpus
from cookbook_lib.data.shards import Packed
from cookbook_lib.data.streams import Stream


@pytest.fixture(scope="module")
def found():
    return corpus.documents()


@pytest.fixture
def few(found, monkeypatch):
    """A tenth of the documents, so that it takes no time."""
    short = {name: texts[::10] for name, texts in found.items()}
    monkeypatch.setattr(corpus, "documents", lambda: short)
    return short


def test_there_is_prose_and_code_and_a_twentieth_of_each_is_held_out(found):
    for source, least in (("prose", 1_000_000), ("code", 5_000_000)):
        size, held = (sum(len(t) for _, t in found[source + end]) for end in ("", "-held-out"))
        assert size > least and 0.01 < held / size < 0.15
    places = {name: {place for place, _ in texts} for name, texts in found.items()}
    assert places["prose"] & places["code"], "a module's docstrings are prose, its text is code"
    for source in ("prose", "code"):
        for other in ("prose", "code"):
            assert not places[source] & places[f"{other}-held-out"]
    assert any(place.startswith("topics/") for place in places["prose"])
    assert not any(place.startswith("encodings/") for place in places["code"])


def test_what_is_held_out_is_told_by_its_place_alone(found):
    for name, texts in found.items():
        assert all((crc32(p.encode()) % 20 == 0) == name.endswith("out") for p, _ in texts)


def test_it_is_the_same_each_time_and_can_be_read_back(few, tmp_path):
    from tokenizers import Tokenizer

    first, second = (corpus.python_corpus(tmp_path / name, 400) for name in ("one", "two"))
    assert first.tokenizer.read_bytes() == second.tokenizer.read_bytes()
    tokenizer = Tokenizer.from_file(str(first.tokenizer))
    assert tokenizer.get_vocab_size() == 400 and tokenizer.token_to_id(corpus.END) == 0
    for mine, other in ((first.shards, second.shards), (first.held_out, second.held_out)):
        for source in ("prose", "code"):
            for a, b in zip(mine[source], other[source], strict=True):
                assert a.with_suffix(".bin").read_bytes() == b.with_suffix(".bin").read_bytes()
    (path,) = first.shards["prose"]
    packed = Packed(path)
    assert len(packed) == len(few["prose"])
    *text, end = packed[3].tolist()
    assert end == 0 and tokenizer.decode(text) == few["prose"][3][1]
    assert Stream("prose", first.shards["prose"], 16).tokens == packed.lengths.sum()


def test_it_is_made_once_and_whole(few, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corpus, "count", broken)
        with pytest.raises(KeyboardInterrupt):
            corpus.python_corpus(tmp_path, 400)
    assert list(tmp_path.iterdir()) == []
    made = corpus.python_corpus(tmp_path, 400)
    monkeypatch.setattr(corpus, "count", broken)
    assert corpus.python_corpus(tmp_path, 400) == made


def test_a_vocabulary_needs_room():
    with pytest.raises(ValueError, match="vocab is 10, expected at least 300"):
        corpus.python_corpus(vocab=10)
