"""Nothing but the site's own files runs on a page: the policy names each script and style, a
browser refuses all else, and search works under it."""

import re
from html import unescape

import pytest
from browser import browser, needs_browser

from cookbook_lib.publishing.delivery import POLICY, delivered

REFUSED = """new Promise((done) => {
    const refused = [];
    addEventListener("securitypolicyviolation", (e) => refused.push(e.effectiveDirective));
    const add = (tag, more) =>
      document.body.append(Object.assign(document.createElement(tag), more));
    add("script", { textContent: "window.hacked = true" });
    add("script", { src: "https://example.org/x.js" });
    add("img", { src: "https://example.org/x.png" });
    const text = "<p style='color: red' onclick='window.hacked = true'>red</p>";
    document.body.insertAdjacentHTML("beforeend", text);
    document.body.lastChild.click();
    fetch("https://example.org/").catch(() => {});
    setTimeout(() => { // a debugger, which runs these lines, may do what a page may not
      try { new Function("window.hacked = true")(); } catch { refused.push("eval"); }
    });
    setTimeout(() => done([...new Set(refused)].sort().concat(String(window.hacked))), 500);
})"""


def policy_of(html: str) -> dict[str, str]:
    content = unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1])
    return dict(rule.split(" ", 1) for rule in content.split("; "))


def test_every_page_starts_with_a_policy_that_lets_nothing_run_by_default(site):
    for page in site.rglob("*.html"):
        html = page.read_text()
        assert html.index("Content-Security-Policy") < html.index("<link") < html.index("<script")
        rules = policy_of(html)
        assert rules["default-src"] == "'none'"
        sources = " ".join(rules.values())
        for loose in ("unsafe-inline", "unsafe-eval", "*", "http:", "https:", "blob:"):
            assert loose not in sources, (page, loose)
        assert set(rules) - {"style-src-attr"} == set(POLICY), page


def test_scripts_and_styles_inside_a_page_are_named_by_their_hash():
    page = '<meta charset="utf-8"><script>a</script><p style="top: 0">'
    rules = policy_of(delivered(page))  # printf a | openssl dgst -sha256 -binary | base64
    assert "sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs=" in rules["script-src"]
    assert rules["style-src-attr"].startswith("'unsafe-hashes' 'sha256-")
    assert "Content-Security-Policy" not in delivered(page, strict=False)


@needs_browser
@pytest.mark.parametrize("page", ["", "planner/"])
def test_a_browser_refuses_what_is_not_of_the_site(site, address, page):
    with browser() as opened:
        tab = opened.new_page()
        tab.goto(address + page)
        *refused, hacked = tab.evaluate(REFUSED)
    assert hacked == "undefined"
    assert {"eval", "script-src-elem", "script-src-attr", "img-src", "style-src-attr"} <= set(
        refused
    )
    assert "connect-src" in refused


@needs_browser
def test_search_finds_words_code_and_names(site, address):
    wrong = []
    with browser() as opened:
        tab = opened.new_page()
        tab.on("console", lambda m: m.type != "error" or wrong.append(m.text))
        for words, found in (("mamba", "mamba"), ("d_state", "d_state")):
            tab.goto(address)
            tab.click(".md-search__input")
            tab.fill(".md-search__input", words)
            tab.wait_for_selector(f".md-search-result__item :text('{found}')", state="attached")
    assert not wrong, wrong
