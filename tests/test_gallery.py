"""A preset's file is enough for its page, its row and its place in the menu; every number there is
the one that the printed command gives; and the table sorts, with a mouse, with keys, or not at all.
"""

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path

import pytest
from browser import browser, check_host, needs_browser, served

from cookbook_lib.calculators import presets
from cookbook_lib.cli import main
from cookbook_lib.commands.output import seconds
from cookbook_lib.publishing import gallery
from cookbook_lib.publishing.sheet_pages import linked, page
from cookbook_lib.publishing.sheets import KINDS, runs, sheet
from cookbook_lib.publishing.tables import Cell, table

ROOT = Path(__file__).parent.parent
SOME = ("zamba2-2.7b", "granite-4.0-h-tiny", "xlstm-7b", "blackmamba-1.5b")  # one of each kind,
SOME += ("llama-2-7b", "deepseek-v3")  # of which one does not fit at 128k and one not at all


def tables(markdown: str) -> dict[str, dict[str, list[str]]]:
    """Caption -> head of a row -> its exact values."""
    return {
        t.find("caption").text: {
            row[0].text or row[0][0].text: [cell.get("data-value") for cell in row[1:]]
            for row in t.find("tbody")
        }
        for line in markdown.splitlines()
        if line.startswith("<div")
        for t in ET.fromstring(line).iter("table")
    }


def commands(markdown: str) -> list[list[str]]:
    return [line.split()[1:] for line in markdown.splitlines() if line.startswith("cookbook ")]


@pytest.mark.parametrize("name", SOME)
def test_the_commands_of_a_page_print_its_numbers(name, capsys):
    text = page(sheet(name))
    shown, reports = tables(text), {}
    for argv in commands(text):
        main([*argv, "--json"])
        reports.setdefault(argv[0], []).append(json.loads(capsys.readouterr().out))
    cost, *_, long = reports["cost"]
    stored, active, used, looked_up = shown["Parameters, four ways"].values()
    assert [stored, active, used, looked_up] == [
        [str(cost[f"params{k}"])] for k in ("", "_active", "_used_per_token", "_embedding")
    ]
    parts = shown["By component; FLOPs of a forward pass over 4,096 tokens"]
    for row in cost["rows"]:
        params, share, flops, flop_share = map(float, parts[row["component"]])
        assert (params, flops) == (row["params"], row["flops"] / 4096)
        assert (
            share == row["params"] / cost["params"] and flop_share == row["flops"] / cost["flops"]
        )
    keys = ("flops_per_token", "decode_flops", "kv_bytes", "conv_state_bytes", "ssm_state_bytes")
    for key, values in zip(
        (*keys, "cache_bytes"), shown["One sequence, bf16"].values(), strict=True
    ):
        assert list(map(float, values)) == [cost[key], long[key]]
    memory, *changed = reports["memory"]
    for part, (nbytes, share) in shown["Memory of the fullest GPU"].items():
        assert int(nbytes) == memory[part] and float(share) == memory[part] / memory["chip_bytes"]
    assert [c["fits"] for c in changed] == ([] if memory["fits"] else [True])
    for report in reports.get("serve-cost", []):
        for key in ("ttft", "tpot"):
            fast, slow = seconds(report[f"{key}_fused"]), seconds(report[f"{key}_eager"])
            assert f">{fast} to {slow}<" in text
        assert f'data-value="{report["memory_bytes"]}"' in text
        assert f">{report['largest_batch']:,}<" in text
    fitting = {"llama-2-7b": 1, "deepseek-v3": 0}.get(name, 2)
    assert len(reports.get("serve-cost", [])) == fitting


@pytest.mark.parametrize("name", presets.names())
def test_a_training_that_does_not_fit_comes_with_a_change_that_does(name, capsys):
    s = sheet(name)
    if s.memory["fits"]:
        assert not s.changed_command()
        return
    main([*s.changed_command().split()[1:], "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["fits"] and report["total"] == s.memory["change_total"]


def test_the_table_has_the_numbers_of_every_model():
    shown = tables(gallery.comparison())["Published models"]
    assert len(shown) == len(presets.names())
    for name in presets.names():
        model = presets.preset(name)
        kind, params, active, layers, attends, cache, flops, memory = shown[model.name]
        assert kind in KINDS and int(layers) == len(model.pattern)
        assert (int(params), int(active)) == (model.params(), model.params_active())
        assert int(cache) == model.state_bytes(s=131_072)
        assert float(flops) == model.flops(l=4096) / 4096
        assert int(memory) == sheet(name).memory["total"]
        kv = sum(state.kind == "kv" for state in model.states())
        assert (float(attends) > 0) == (kv > 0), name


def test_kinds_are_what_the_models_are():
    kinds = {name: sheet(name).kind for name in presets.names()}
    assert {kinds[n] for n in ("llama-3.1-8b", "mistral-7b-v0.1", "pythia-1.4b")} == {"dense"}
    assert {kinds[n] for n in ("deepseek-v3", "mixtral-8x7b-v0.1")} == {"MoE"}
    assert {kinds[n] for n in ("mamba2-130m", "xlstm-7b", "rwkv7-goose-world3-1.5b")} == {
        "recurrent"
    }
    assert kinds["blackmamba-2.8b"] == "recurrent MoE"
    assert {kinds[n] for n in ("jamba-v0.1", "minimax-m1", "qwen3-next-80b-a3b")} == {"hybrid MoE"}
    assert {kinds[n] for n in ("zamba-7b-v1", "recurrentgemma-2b", "lfm2-1.2b")} == {"hybrid"}
    assert {sheet(n).attention_layers for n in ("nemotron-h-8b", "jamba-v0.1")} == {4}


@pytest.mark.parametrize("name", presets.names())
def test_a_page_says_built_where_the_blocks_build_the_model(name):
    import torch

    from cookbook_lib.blocks.models import build

    try:
        with torch.device("meta"):
            build(presets.entry(name)["config"])
        built = True
    except ValueError:
        built = False
    assert runs(name) == built


def test_text_in_a_table_and_addresses_are_escaped_and_linked():
    shown = table("a < b", ("", "n"), [("x & y", Cell("1.0", 1))])
    assert shown.count("a &lt; b") == 2 and "x &amp; y" in shown and 'data-value="1">1.0<' in shown
    assert linked("arXiv:2402.01771; https://a.org/b (c)") == (
        '<a href="https://arxiv.org/abs/2402.01771">arXiv:2402.01771</a>; '
        '<a href="https://a.org/b">a.org/b</a> (c)'
    )


NEW = {
    "name": "Newcomer-1",
    "source": "https://example.org/newcomer (config.json)",
    "note": "Made up.",
    "config": {"model_type": "llama", "hidden_size": 256, "num_attention_heads": 4},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A copy of the book without recipes and with one more preset, built."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("cookbook_lib", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("mkdocs.yml", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, copy)
    (copy / "recipes").mkdir()
    (copy / "build" / "recipes").mkdir(parents=True)  # which mkdocs watches
    (copy / "build" / "pyodide").symlink_to(ROOT / "build" / "pyodide")
    folder = copy / "cookbook_lib" / "calculators" / "presets"
    (folder / "newcomer-1.json").write_text(json.dumps(NEW))
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build"], cwd=copy, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return copy / "site"


def test_a_new_preset_has_a_page_a_row_and_a_place_in_the_menu_and_is_found(site):
    new = site / "models" / "newcomer-1" / "index.html"
    from cookbook_lib.calculators.configs import from_dict

    params = from_dict(NEW["config"], "new").params()
    assert f"{params:,}" in new.read_text() and "Made up." in new.read_text()
    assert "/presets/newcomer-1.json" in new.read_text()
    index = (site / "models" / "index.html").read_text()
    assert f'data-value="{params}"' in index and 'href="newcomer-1/"' in index
    menu = re.search(r'<nav class="md-nav md-nav--primary.*?</nav>\s*</div>', index, re.DOTALL)[0]
    assert menu.index("Dense") < menu.index("Newcomer-1")
    search = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    found = {doc["location"]: doc["text"] for doc in search}
    assert "Made up." in found["models/newcomer-1/"]
    assert "norm attention" not in " ".join(found.values()), "a drawing's text is in the search"


def test_tables_and_drawings_are_well_formed_and_sources_are_linked(site):
    for name in presets.names():
        html = (site / "models" / name / "index.html").read_text()
        boxes = [ET.fromstring(x) for x in re.findall(r'^<div class="(?:nb|model)-.*$', html, re.M)]
        tags = [element.tag.rpartition("}")[2] for box in boxes for element in box.iter()]
        assert tags.count("svg") == 2 and tags.count("table") >= 4, name
        address = re.search(r"https?://[^\s;,()]+", presets.entry(name)["source"])
        assert f'href="{address[0]}"' in html


HEADS = ("Model", "Parameters (B)", "Cache at 128k (GiB)")


@needs_browser
def test_the_table_sorts_with_a_mouse_and_with_keys_and_filters(site):
    wrong: list[str] = []
    with served(site) as address, browser() as opened:
        tab = opened.new_page()
        tab.on("request", partial(check_host, wrong, address))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.goto(address + "models/")
        rows = tab.locator(".models tbody tr:visible")
        heads = [head.strip() for head in tab.locator(".models thead th").all_inner_texts()]

        def values(head: str) -> list[str]:
            cells = f"rows => rows.map(row => row.cells[{heads.index(head)}].dataset.value)"
            return rows.evaluate_all(cells)

        def state(head: str) -> str | None:
            return tab.get_by_role("columnheader", name=head).get_attribute("aria-sort")

        assert state("Model") == "ascending" and values("Model") == sorted(values("Model"))
        for head in HEADS[1:]:
            tab.get_by_role("button", name=head).click()
            numbers = list(map(float, values(head)))
            assert state(head) == "ascending" and numbers == sorted(numbers)
            tab.keyboard.press("Enter")  # the button has the focus
            assert state(head) == "descending"
            assert list(map(float, values(head))) == sorted(numbers, reverse=True)
        assert tab.locator(".models th[aria-sort]").count() == 1
        tab.keyboard.press("Tab")  # to the next column
        tab.keyboard.press("Space")
        assert state("GFLOPs a token at 4k") == "ascending"

        count = rows.count()
        tab.get_by_role("button", name="recurrent").click()
        shown = values("Kind")
        assert set(shown) == {"recurrent", "recurrent MoE"} and len(shown) < count
        assert tab.get_by_role("status").inner_text() == f"{len(shown)} of {count}"
        tab.get_by_role("button", name="all").click()
        assert rows.count() == count
    assert not wrong, "\n".join(wrong)


@needs_browser
def test_on_a_phone_the_name_of_a_model_stays_in_view_while_its_row_scrolls(site):
    with served(site) as address, browser() as opened:
        tab = opened.new_page(viewport={"width": 390, "height": 844})
        tab.goto(address + "models/")
        name = tab.locator(".models tbody th").first
        before = name.bounding_box()["x"]
        moved = "box => { box.scrollLeft = 200; return box.scrollLeft; }"
        assert tab.locator(".models .nb-html").evaluate(moved) == 200
        assert name.bounding_box()["x"] == before
        tab.goto(address + "models/zamba2-7b/")
        drawn = tab.locator(".nb-figure svg:visible")
        assert drawn.count() == 1 and drawn.bounding_box()["width"] <= 390


@needs_browser
def test_without_a_script_the_table_is_whole_and_has_no_buttons(site):
    with served(site) as address, browser() as opened:
        tab = opened.new_page(java_script_enabled=False)
        tab.goto(address + "models/")
        assert tab.locator(".models tbody tr").count() == len(presets.names()) + 1
        assert tab.locator(".models button:visible").count() == 0
