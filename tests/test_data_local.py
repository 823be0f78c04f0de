"""Every machine has a corpus to try things on, and its documents have names of their own."""

import pytest

pytest.importorskip("orjson", reason="cookbook_lib.data needs the extra `data`")

from cookbook_lib.data.files import find
from cookbook_lib.data.local import local_corpus
from cookbook_lib.data.reading import Document, documents


def test_a_local_corpus_can_be_read_and_names_each_document_once(tmp_path):
    paths = local_corpus(tmp_path, limit=50)
    assert set(paths) == {"descriptions", "docstrings", "licences", "code"}
    found = list(documents(find([str(tmp_path)])[0]))
    assert all(isinstance(one, Document) for one in found)
    assert len({one.id for one in found}) == len(found)
    for name in paths:
        mine = [one for one in found if one.id.startswith(f"{name}/")]
        assert 20 < len(mine) <= 50 and sum(len(one.text) for one in mine) > 10_000
