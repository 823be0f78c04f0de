"""The drawing shows every layer and every block of a model, says it in words, and is valid XML."""

import xml.etree.ElementTree as ET

import pytest

from cookbook_lib.calculators.diagram import draw
from cookbook_lib.calculators.presets import names, preset

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("wanted", [328, 680])  # a phone, and the recipes
@pytest.mark.parametrize("name", names())
def test_every_layer_and_block_is_drawn(name, wanted):
    model = preset(name)
    root = ET.fromstring(draw(model, width=wanted))
    texts = [t.text for t in root.iter(f"{SVG}text")]
    n = len(model.pattern)
    assert texts[:n] == list(model.pattern)
    components = [
        b.component for k, layout in model.layers for _, b in layout if k in model.pattern
    ]
    assert [t for t in texts[n:] if t in set(components)] == components
    assert model.pattern in root.find(f"{SVG}title").text
    width, height = map(float, root.get("viewBox").split()[2:])
    assert width == wanted
    for box in root.iter(f"{SVG}rect"):
        assert float(box.get("x", 0)) + float(box.get("width")) <= width
        assert float(box.get("y", 0)) + float(box.get("height")) <= height


def test_only_shared_blocks_are_dashed():
    dashed = {name: draw(preset(name)).count("stroke-dasharray") for name in names()}
    assert dashed.pop("zamba-7b-v1") == 4  # two norms, attention and MLP
    assert [dashed.pop(f"zamba2-{size}") for size in ("1.2b", "2.7b", "7b")] == [4, 8, 8]
    assert set(dashed.values()) == {0}
