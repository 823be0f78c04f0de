"""The planner in a browser gives the bytes that the commands print, says what is wrong in the same
line, works with the keyboard alone and without a network, and asks no other host."""

import json
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from browser import browser, check_host, needs_browser, served

from cookbook_lib.calculators import presets
from cookbook_lib.cli import main
from cookbook_lib.publishing.planner.answers import COMMANDS, shell
from cookbook_lib.publishing.planner.bundle import PACKAGES, form, library
from cookbook_lib.publishing.planner.page import CONTEXTS, respond
from cookbook_lib.publishing.planner.settings import INPUTS, State, parse

ROOT = Path(__file__).parent.parent
CONFIG = json.dumps(presets.entry("zamba2-1.2b")["config"] | {"vocab_size": 50_000})
PLANS = [  # what a reader might ask for: 20 states of the form
    {"a": "zamba2-2.7b"},
    {"a": "zamba2-1.2b", "context": "131072", "batch": "8"},
    {"a": "zamba2-7b", "gpus": "128", "mfu": "0.4", "price": "2.5"},
    {"a": "zamba-7b-v1", "gpus": "128", "zero": "3", "recompute": "full"},
    {"a": "blackmamba-2.8b", "tokens": "2048", "train_tokens": "3e11"},
    {"a": "mamba-2.8b", "chip": "a100", "output": "64"},
    {"a": "mamba2-2.7b", "chip": "rtx4090", "weights": "int4", "gpus": "1"},
    {"a": "llama-3.1-8b", "tp": "8", "gpus": "64", "context": "32768"},
    {"a": "llama-2-7b", "b": "zamba2-7b"},
    {"a": "mixtral-8x7b", "chip": "h200", "gpus": "64", "pp": "4"},
    {"a": "zamba2-2.7b,pattern=(mmmmmA)*9"},
    {"a": "zamba2-2.7b,hidden_size=2048,n_mamba_heads=64,intermediate_size=8192"},
    {"a": "llama-3.1-8b,num_hidden_layers=16", "micro_batch": "4"},
    {"a": "config.json", "config": CONFIG},
    {"a": "config.json,num_key_value_heads=8", "config": CONFIG, "b": "zamba2-1.2b"},
    {"a": "qwen3-next-80b-a3b", "weights": "nvfp4", "chip": "b200"},
    {"a": "nemotron-h-8b", "batch": "16", "context": "65536"},
    {"a": "jamba-v0.1", "chip": "b200", "gpus": "512", "zero": "3", "recompute": "full"},
    {"a": "phi-1.5", "chip": "cpu", "gpus": "1", "train_tokens": "1.5e9"},
    {"a": "phi-3-mini", "chip": "phone", "gpus": "1", "weights": "int4", "context": "1024"},
]


def printed(command: str, capsys, tmp_path) -> str | None:
    """What the command prints with --json; None if it ends with a line of error."""
    import shlex

    (tmp_path / "config.json").write_text(CONFIG)
    words = [
        str(tmp_path / word) if word.startswith("config.json") else word
        for word in shlex.split(command)[1:]
    ]
    try:
        main([*words, "--json"])
    except SystemExit:
        capsys.readouterr()
        return None
    return capsys.readouterr().out


def exported(state: dict[str, str]) -> dict:
    answer = json.loads(respond(json.dumps({"state": state, "part": "export"})))
    return json.loads(answer["parts"]["json"])


def differences(every: dict, capsys, tmp_path) -> list[str]:
    """The commands whose output differs from what the planner exported."""
    wrong = []
    for reports in every.values():
        for name, entry in reports.items():
            ours = json.dumps(entry["report"], indent=2) + "\n" if entry["report"] else None
            theirs = printed(entry["command"], capsys, tmp_path)
            if theirs and "config.json" in theirs:  # a page of the browser has no folder
                theirs = theirs.replace(str(tmp_path) + "/", "")
            if ours != theirs:
                wrong.append(f"{name}: {entry['command']}")
    return wrong


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan["a"][:30])
def test_the_printed_commands_give_the_numbers_of_the_page(plan, capsys, tmp_path):
    every = exported(plan)
    assert set(every["A"]) == set(COMMANDS)
    assert any(entry["report"] for entry in every["A"].values())
    assert differences(every, capsys, tmp_path) == []


def test_every_setting_reaches_a_command_and_the_form():
    flags = {setting for command in COMMANDS.values() for _, setting in command.flags}
    assert flags == set(INPUTS)
    html = form()
    assert all(f'name="{name}"' in html and f'for="planner-{name}"' in html for name in INPUTS)


def test_the_library_of_the_page_needs_no_other_package(tmp_path):
    import subprocess
    import zipfile

    (tmp_path / "library.zip").write_bytes(library(ROOT))
    assert library(ROOT) == (tmp_path / "library.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "library.zip") as archive:
        assert len(archive.namelist()) > len(PACKAGES)
        archive.extractall(tmp_path / "unpacked")
    request = json.dumps({"state": {}, "part": "quick"})
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'unpacked')!r})\n"
        f"from cookbook_lib.publishing.planner.page import respond\nprint(respond({request!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == json.loads(respond(request))


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a": "zamba3"}, "no preset is called 'zamba3'"),
        ({"a": "config.json"}, "config.json is empty: paste a config"),
        ({"a": "config.json", "config": "{"}, "config.json: not JSON"),
        ({"a": "config.json", "config": "[1]"}, "config.json: holds a list"),
        ({"a": "/etc/passwd"}, "/etc/passwd is not here"),
        ({"a": "zamba2-2.7b,pattern=mq"}, "pattern has 'q'"),
        ({"gpus": "many"}, "GPUs is 'many', expected a whole number"),
        ({"chip": "h1000"}, "Chip is 'h1000', expected one of"),
        ({"train_tokens": "nan"}, "train_tokens is nan"),
        ({"mfu": "40"}, "mfu is 40.0, expected a part of the peak"),
        ({"tp": "3", "gpus": "8"}, "tp"),
        ({"a": ""}, "no model is chosen"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(state, said):
    answer = json.loads(respond(json.dumps({"state": state, "part": "quick"})))
    assert any(line.startswith(said) or said in line for line in answer["errors"]), answer["errors"]
    assert all("\n" not in line for line in answer["errors"])


def test_words_of_a_reader_are_shown_as_words():
    config = json.dumps({"model_type": "<img src=x onerror=alert(1)>"})
    state = {"a": "zamba2-2.7b,name='<b>'", "b": "config.json", "config": config}
    answer = json.loads(respond(json.dumps({"state": state, "part": "quick"})))
    assert "<img" not in "".join(answer["parts"].values()) and answer["errors"]
    shown = json.loads(respond(json.dumps({"state": {"b": "<b>"}, "part": "quick"})))
    assert "<b>" not in "".join(shown["parts"].values())


def test_the_curve_of_the_cache_is_the_cost_report(capsys):
    state = parse({"a": "zamba2-2.7b", "batch": "4"})
    from cookbook_lib.publishing.planner.answers import cache_curve, model_of, report

    curve = cache_curve(model_of(state.a, ""), 4, CONTEXTS)
    for context, held in zip(CONTEXTS, curve, strict=True):
        values = dict(state.values) | {"context": context}
        assert report("cost", state.a, "", values)["cache_bytes"] == held


def test_a_command_quotes_what_a_shell_would_read():
    state = State(a="zamba2-2.7b,pattern=(mmmmmA)*9")
    assert "'zamba2-2.7b,pattern=(mmmmmA)*9'" in shell("cost", state.a, state.values)


@contextmanager
def planner(opened, address: str, wrong: list[str], query: str = "", **options):
    """A tab with the planner, once it has answered."""
    context = opened.new_context(**options)
    tab = context.new_page()
    tab.on("request", partial(check_host, wrong, address.removesuffix("cookbook/")))
    tab.on("console", lambda m: m.type != "error" or wrong.append(m.text))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto(f"{address}planner/{query}")
    tab.wait_for_selector(".planner[data-ready][data-advice]", timeout=120_000)
    yield tab
    context.close()


def set_form(tab, plan: dict[str, str]) -> None:
    """Fill the form and wait for its answer."""
    tab.evaluate(
        """(plan) => {
          const form = document.querySelector(".planner form");
          for (const [name, text] of Object.entries(plan)) {
            const field = form.elements[name];
            field.value = field.type === "range" ? Math.log2(Number(text)) : text;
          }
          form.elements.a.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        plan,
    )


@needs_browser
def test_the_browser_gives_the_bytes_of_the_command_line(site, address, capsys, tmp_path):
    wrong: list[str] = []
    empty = {name: str(of.default) for name, of in INPUTS.items()} | {"b": "", "config": ""}
    empty["train_tokens"] = "1e+12"
    with browser() as opened, planner(opened, address, wrong) as tab:
        for plan in PLANS:
            set_form(tab, empty | plan)
            with tab.expect_download(timeout=60_000) as download:
                tab.click("[data-do=export]")
            every = json.loads(Path(download.value.path()).read_text())
            assert every == exported(plan), plan
            assert differences(every, capsys, tmp_path) == [], plan
    assert not wrong, wrong


@needs_browser
def test_the_keyboard_is_enough_and_the_link_restores_the_plan(site, address):
    wrong: list[str] = []
    with browser() as opened:
        with planner(opened, address, wrong) as tab:
            tab.focus("#planner-a")
            tab.keyboard.press("ControlOrMeta+a")
            tab.keyboard.type("llama-3.1-8b")
            tab.locator("[data-part=glance]", has_text="8,030,261,248").wait_for()
            tab.keyboard.press("Tab")  # to the summary of its sizes
            tab.keyboard.press("Enter")
            tab.keyboard.press("Tab")
            assert tab.evaluate("document.activeElement.dataset.field") == "pattern"
            tab.focus("#planner-context")
            tab.keyboard.press("ArrowRight")
            tab.locator("[data-part=glance]", has_text="1.00 GiB").wait_for()
            shown, link = tab.inner_text("[data-part=glance]"), tab.url
            assert "8,030,261,248" in shown
        with planner(opened, address, wrong, link.partition("planner/")[2]) as tab:
            assert tab.inner_text("[data-part=glance]") == shown
    assert not wrong, wrong


@needs_browser
def test_a_wrong_value_is_said_and_the_last_answer_stays(site, address):
    wrong: list[str] = []
    with browser() as opened, planner(opened, address, wrong) as tab:
        before = tab.inner_text("[data-part=glance]")
        tab.fill("#planner-a", "zamba2-2.7b,pattern=mmq")
        tab.wait_for_selector(".planner-errors p")
        answer = json.loads(
            respond(json.dumps({"state": {"a": "zamba2-2.7b,pattern=mmq"}, "part": "quick"}))
        )
        assert tab.inner_text(".planner-errors p").strip() == answer["errors"][0]
        assert tab.inner_text("[data-part=glance]") == before
    assert not wrong, wrong


@needs_browser
def test_the_planner_works_without_a_network_after_one_visit(site):
    with browser() as opened:
        context = opened.new_context()
        tab = context.new_page()
        with served(site) as address:
            tab.goto(f"{address}planner/")
            tab.wait_for_selector(".planner[data-kept]", timeout=120_000)
        tab.goto(f"{address}planner/?a=zamba2-1.2b", timeout=60_000)  # the server is gone
        tab.wait_for_selector(".planner[data-advice]", timeout=120_000)
        assert "1,215,064,704" in tab.inner_text("[data-part=glance]")
        context.close()
