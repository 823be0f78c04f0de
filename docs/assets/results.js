// Filters, sorts and plots the committed results. Without this file the page lists the files.
"use strict";
{
  const root = document.querySelector(".results");
  const part = (name) => root.querySelector(`.results-${name}`);
  const FIXED = ["line", "name", "device", "dtype", "date"]; // what each row begins with
  const PREFIXES = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"],
    [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
  const state = { file: "", name: "", device: "", dtype: "", x: "", y: "", sort: "line" };
  let files = [];

  const make = (tag, attributes = {}, ...inside) => {
    const made = document.createElement(tag);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    made.append(...inside);
    return made;
  };

  const shown = (value, unit) => {
    if (value === null || value === undefined) return "–";
    if (typeof value === "string") return value;
    if (unit === "%") return `${(100 * value).toPrecision(3)}%`;
    if (!unit) return value.toLocaleString("en", { maximumSignificantDigits: 6 });
    const [size, prefix] = PREFIXES.find(([least]) => Math.abs(value) >= least) || [1, ""];
    return `${Number((value / size).toPrecision(3))} ${prefix}${unit}`;
  };

  const tick = (value, unit) => { // shorter than in the table: 5k
    const [size, prefix] = PREFIXES.find(([least]) => Math.abs(value) >= least) || [1, ""];
    if (unit || size < 1e3) return shown(value, unit);
    return `${Number((value / size).toPrecision(3))}${prefix}`;
  };

  const file = () => files.find((of) => of.file === state.file);
  const columns = () => [
    { label: "line" }, { label: file().name }, { label: "device" }, { label: "dtype" },
    { label: "date" }, ...file().by.map((label) => ({ label })), ...file().columns,
  ];
  const numbers = () => file().columns.map((column) => column.label);
  const at = (label) => columns().findLastIndex((column) => column.label === label);
  const kept = (row) =>
    ["name", "device", "dtype"].every((key) => !state[key] || row[FIXED.indexOf(key)] === state[key]);
  const series = (row) =>
    [row[1], row[2], row[3], ...row.slice(FIXED.length, FIXED.length + file().by.length)]
      .filter((word, i) => word && (i !== 1 || devices() > 1)).join(" · ");
  const devices = () => new Set(file().rows.map((row) => row[2])).size;

  const select = (name, label, options, chosen) => {
    const field = make("select", { id: `results-${name}`, name });
    options.forEach(([value, text]) => {
      field.append(new Option(text, value, false, value === chosen));
    });
    return make("div", {}, make("label", { for: `results-${name}` }, label), field);
  };

  const form = () => {
    const of = file();
    const values = (i) => [...new Set(of.rows.map((row) => row[i]))].filter(Boolean).sort();
    const choices = (i) => [["", "all"], ...values(i).map((value) => [value, value])];
    const axes = numbers().map((label) => [label, label]);
    part("form").replaceChildren(
      select("file", "Results", files.map((f) => [f.file, f.title]), state.file),
      select("name", of.name, choices(1), state.name),
      select("device", "Device", choices(2), state.device),
      select("dtype", "dtype", choices(3), state.dtype),
      select("x", "Across", axes, state.x),
      select("y", "Up", axes, state.y),
    );
  };

  const ticks = (low, high) => { // powers of ten, and 2 and 5 where those are few
    const all = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
      for (const m of [1, 2, 5]) all.push(m * 10 ** e);
    }
    const inside = all.filter((t) => t >= low * 0.999 && t <= high * 1.001);
    const tens = inside.filter((t) => Math.abs(Math.log10(t) % 1) < 1e-9);
    return tens.length > 2 ? tens : inside;
  };

  const svg = (tag, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    if (text) made.textContent = text;
    return made;
  };

  const axis = (values, from, to) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const logarithmic = low > 0 && high / low > 5;
    const f = logarithmic ? Math.log10 : (v) => v;
    const pad = f(high) === f(low) ? 1 : 0;
    const place = (v) => from + ((f(v) - f(low) + pad / 2) / (f(high) - f(low) + pad)) * (to - from);
    const steps = logarithmic ? ticks(low, high) : [...new Set([low, (low + high) / 2, high])];
    return { place, steps };
  };

  const plot = (rows) => {
    const [i, j] = [at(state.x), at(state.y)];
    const [across, up] = [columns()[i], columns()[j]];
    const points = rows.filter((row) => typeof row[i] === "number" && typeof row[j] === "number");
    const box = part("plot");
    box.replaceChildren();
    if (!points.length) return;
    const width = Math.max(280, Math.min(box.clientWidth, 640)); // so that the letters keep their size
    const [height, left, bottom] = [width > 480 ? 340 : 280, 64, 40];
    const x = axis(points.map((row) => row[i]), left + 8, width - 14);
    const y = axis(points.map((row) => row[j]), height - bottom - 8, 24);
    const lines = Map.groupBy ? Map.groupBy(points, series) : points.reduce(
      (map, row) => map.set(series(row), [...(map.get(series(row)) || []), row]), new Map());
    const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": `${up.label} against ${across.label}: ${points.length} points in ${lines.size} series; the table below has all numbers` });
    x.steps.forEach((v) => {
      drawn.append(svg("line", { class: "grid", x1: x.place(v), x2: x.place(v), y1: 20, y2: height - bottom }),
        svg("text", { x: x.place(v), y: height - bottom + 14, "text-anchor": "middle" }, tick(v, across.unit)));
    });
    y.steps.forEach((v) => {
      drawn.append(svg("line", { class: "grid", x1: left, x2: width - 6, y1: y.place(v), y2: y.place(v) }),
        svg("text", { x: left - 5, y: y.place(v) + 4, "text-anchor": "end" }, tick(v, up.unit)));
    });
    drawn.append(svg("text", { x: (left + width) / 2, y: height - 6, "text-anchor": "middle" }, across.label),
      svg("text", { x: 4, y: 12 }, up.label));
    const keys = make("ul", { class: "results-keys" });
    [...lines].forEach(([name, of], k) => {
      const kind = `s${k % 8}${k >= 8 ? " dashed" : ""}`;
      const sorted = [...of].sort((a, b) => a[i] - b[i]);
      const single = new Set(sorted.map((row) => row[i])).size === sorted.length;
      if (single && sorted.length > 1) {
        drawn.append(svg("polyline", { class: kind,
          points: sorted.map((row) => `${x.place(row[i])},${y.place(row[j])}`).join(" ") }));
      }
      sorted.forEach((row) => {
        const dot = svg("circle", { class: kind, cx: x.place(row[i]), cy: y.place(row[j]), r: 3 });
        dot.append(svg("title", {}, `line ${row[0]}, ${name}: ${shown(row[i], across.unit)}, ${shown(row[j], up.unit)}`));
        drawn.append(dot);
      });
      if (k < 16) keys.append(make("li", { class: kind }, name));
    });
    if (lines.size > 16) keys.append(make("li", {}, `and ${lines.size - 16} more: choose one above`));
    box.append(drawn, keys);
  };

  const table = (rows) => {
    const [key, down] = [state.sort.replace(/^-/, ""), state.sort.startsWith("-")];
    const column = Math.max(at(key), 0);
    const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
    const sorted = [...rows].sort((a, b) => order(a[column], b[column]) * (down ? -1 : 1));
    const width = columns().length; // what tells rows apart first, then numbers, then the origin
    const places = [0, 1, ...[...Array(width).keys()].slice(FIXED.length), 3, 4, 2];
    const words = (i) => (i && rows.every((row) => typeof row[i] === "string") ? { class: "nb-words" } : {});
    const heads = places.map((i, place) => {
      const { label } = columns()[i];
      const button = make("button", { type: "button" }, label);
      button.addEventListener("click", () => {
        state.sort = state.sort === label ? `-${label}` : label;
        show();
        part("table").querySelectorAll("th button")[place].focus();
      });
      const head = make("th", { scope: "col", ...words(i) }, button);
      if (i === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      return head;
    });
    const body = sorted.map((row) => make("tr", { "data-line": row[0] }, ...places.map((i) =>
      make(i ? "td" : "th", i ? words(i) : { scope: "row" }, shown(row[i], columns()[i].unit)))));
    part("table").replaceChildren(make("div", { class: "nb-output nb-html", role: "region", tabindex: "0", "aria-label": "Rows" },
      make("table", { class: "nb-table" }, make("caption", {}, `Rows of ${state.file}.jsonl`),
        make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body))));
  };

  const show = () => {
    const rows = file().rows.filter(kept);
    const raw = make("a", { href: `../data/${state.file}.jsonl` }, `${state.file}.jsonl`);
    const made = file().command ? [", rows like these come from ", make("code", {}, file().command)] : [];
    part("status").replaceChildren(`${rows.length} of ${file().rows.length} rows of `, raw, ...made);
    plot(rows);
    table(rows);
    const asked = Object.entries(state).filter(([key, value]) => value && !(key === "sort" && value === "line"));
    history.replaceState(null, "", `?${new URLSearchParams(asked)}`);
  };

  const choose = () => { // what the state asks for, as far as the file has it
    if (!file()) state.file = files[0].file;
    ["name", "device", "dtype"].forEach((key) => {
      if (!file().rows.some((row) => row[FIXED.indexOf(key)] === state[key])) state[key] = "";
    });
    if (!numbers().includes(state.x)) state.x = numbers()[0];
    if (!numbers().includes(state.y)) state.y = numbers().at(-1);
    form();
    show();
  };

  part("form").addEventListener("change", (event) => {
    state[event.target.name] = event.target.value;
    if (event.target.name === "file") Object.assign(state, { name: "", x: "", y: "", sort: "line" });
    choose();
    part("form").elements[event.target.name].focus();
  });

  fetch(root.dataset.source).then((answer) => answer.json()).then((data) => {
    files = data.files;
    new URLSearchParams(location.search).forEach((value, key) => {
      if (key in state) state[key] = value;
    });
    if (!state.file) state.file = "crossovers";
    part("form").hidden = false;
    choose();
  }).catch((error) => {
    part("status").textContent = `The results cannot be read: ${error.message}. The files below hold all rows.`;
  });
}
