// Draws 1 - (1 - s^r)^b for the bands and rows that a reader chooses, beside what was measured.
// Without this file the figure stays as it was printed.
"use strict";
{
  const figure = document.querySelector("figure[data-live='s-curve']");
  const { threshold, measured } = JSON.parse(figure.dataset.values);
  const WIDTH = 420, HEIGHT = 270, LEFT = 54, RIGHT = 12, TOP = 10, BOTTOM = 42;
  const COLORS = ["#2980c8", "#e86b05"]; // plots.COLORS
  const STEPS = 200;

  const x = (s) => LEFT + s * (WIDTH - LEFT - RIGHT);
  const y = (p) => HEIGHT - BOTTOM - p * (HEIGHT - TOP - BOTTOM);
  const chance = (s, bands, rows) => 1 - (1 - s ** rows) ** bands;

  const draw = (tag, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    made.textContent = text;
    return made;
  };
  const line = (x1, y1, x2, y2, more = {}) =>
    draw("line", { x1, y1, x2, y2, stroke: "currentColor", "stroke-width": 0.8, ...more });
  const label = (at, text, more = {}) =>
    draw("text", { fill: "currentColor", "font-size": 13, ...at, ...more }, text);

  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "s-curve-plot", role: "img" });
  for (let k = 0; k <= 5; k++) {
    const at = k / 5;
    svg.append(
      line(x(at), y(0), x(at), y(1), { opacity: 0.15 }),
      line(x(0), y(at), x(1), y(at), { opacity: 0.15 }),
      label({ x: x(at), y: y(0) + 18 }, at.toFixed(1), { "text-anchor": "middle" }),
      label({ x: x(0) - 8, y: y(at) + 4 }, at.toFixed(1), { "text-anchor": "end" }),
    );
  }
  svg.append(
    line(x(0), y(0), x(1), y(0)),
    line(x(0), y(0), x(0), y(1)),
    label({ x: x(0.5), y: HEIGHT - 4 }, "Jaccard similarity", { "text-anchor": "middle" }),
    label({ x: -y(0.5), y: 13 }, "chance of becoming one", { "text-anchor": "middle", transform: "rotate(-90)" }),
  );
  measured.forEach(({ at, share }, i) => {
    at.forEach((s, k) => svg.append(draw("circle", { cx: x(s), cy: y(share[k]), r: 3.5, fill: COLORS[i] })));
  });
  const curve = draw("path", { fill: "none", stroke: "currentColor", "stroke-width": 2 });
  const mark = line(0, y(0), 0, y(1), { "stroke-dasharray": "2 3" });
  svg.append(mark, curve);

  const panel = document.createElement("div");
  panel.className = "s-curve";
  const said = document.createElement("output");

  const slider = (name, attributes, value) => {
    const row = document.createElement("label");
    const input = document.createElement("input");
    const shown = document.createElement("span");
    Object.assign(input, { type: "range", name, ...attributes });
    input.value = value;
    input.addEventListener("input", redraw);
    row.append(`${name} `, input, shown);
    panel.append(row);
    return { input, shown };
  };
  const controls = {};

  function redraw() {
    const [bands, rows, wanted] = ["bands", "rows", "threshold"].map((name) => {
      const { input, shown } = controls[name];
      shown.textContent = input.value;
      return Number(input.value);
    });
    const points = Array.from({ length: STEPS + 1 }, (_, k) => k / STEPS);
    const path = points.map((s) => `${x(s).toFixed(2)} ${y(chance(s, bands, rows)).toFixed(2)}`);
    curve.setAttribute("d", `M${path.join("L")}`);
    mark.setAttribute("x1", x(wanted));
    mark.setAttribute("x2", x(wanted));
    const half = (1 - 0.5 ** (1 / bands)) ** (1 / rows);
    const percent = (p) => `${(100 * p).toFixed(1)}%`;
    said.textContent =
      `${bands} × ${rows} = ${bands * rows} numbers; half of the pairs are found at ${half.toFixed(3)}; ` +
      `at ${wanted.toFixed(2)} ${percent(chance(wanted, bands, rows))}, ` +
      `0.1 below it ${percent(chance(wanted - 0.1, bands, rows))}`;
    svg.setAttribute("aria-label", `Chance of becoming one against similarity: ${said.textContent}`);
  }

  const first = measured[0];
  controls.bands = slider("bands", { min: 1, max: 128 }, first.bands);
  controls.rows = slider("rows", { min: 1, max: 32 }, first.rows);
  controls.threshold = slider("threshold", { min: 0.1, max: 0.95, step: 0.05 }, threshold);

  const choices = document.createElement("div");
  measured.forEach(({ name, bands, rows }, i) => {
    const choice = document.createElement("button");
    choice.type = "button";
    choice.textContent = `${name}: ${bands} × ${rows}`;
    choice.style.setProperty("--dot", COLORS[i]);
    choice.addEventListener("click", () => {
      controls.bands.input.value = bands;
      controls.rows.input.value = rows;
      redraw();
    });
    choices.append(choice);
  });
  choices.append(document.createElement("br"), "Dots are measured, the line is the formula.");
  panel.append(choices, said);

  redraw();
  figure.replaceChildren(svg, panel);
  figure.classList.add("s-curve-live");
  ["role", "tabindex", "aria-label"].forEach((name) => figure.removeAttribute(name));
}
