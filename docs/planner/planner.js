// The planner's form: its state is in the address, its answers come from worker.js.
"use strict";
{
  const root = document.querySelector(".planner");
  const form = root.querySelector("form");
  const status = root.querySelector("[role=status]");
  const problems = root.querySelector("[role=alert]");
  const place = (name) => root.querySelector(`[data-part="${name}"]`);
  const here = document.currentScript.src;
  const worker = new Worker(new URL("worker.js", here), { type: "module" });
  let number = 0;
  let later;

  const fields = [...form.elements].filter((field) => field.name);
  const initial = Object.fromEntries(fields.map((field) => [field.name, read(field)]));
  initial.a = "zamba2-2.7b";

  function read(field) {
    return field.type === "range" ? String(2 ** field.value) : field.value.trim();
  }

  const write = (field, text) => {
    field.value = field.type === "range" ? Math.log2(Number(text)) : text;
    show(field);
  };

  const show = (field) => {
    if (field.type !== "range") return;
    const text = Number(read(field)).toLocaleString("en");
    field.setAttribute("aria-valuetext", text);
    field.parentElement.querySelector("output").textContent = text;
  };

  const state = () => Object.fromEntries(fields.map((field) => [field.name, read(field)]));

  const remember = (now) => {
    const words = Object.entries(now).filter(([name, text]) => text !== initial[name]);
    const query = new URLSearchParams(words).toString();
    history.replaceState(null, "", location.pathname + (query && `?${query}`) + location.hash);
  };

  const ask = () => {
    const now = state();
    remember(now);
    number += 1;
    worker.postMessage({ part: "quick", state: now, number });
    clearTimeout(later);
    later = setTimeout(() => {
      for (const part of ["serving", "advice"]) worker.postMessage({ part, state: now, number });
    }, 250);
    root.setAttribute("aria-busy", "true");
  };

  const fill = ({ parts, errors, fields: sizes }, part) => {
    for (const [name, html] of Object.entries(parts)) {
      if (place(name)) place(name).innerHTML = html;
    }
    const shown = { quick: place("errors"), serving: place("later-errors") }[part];
    shown?.replaceChildren(...errors.map((line) => {
      const item = document.createElement("p");
      item.textContent = line;
      return item;
    }));
    problems.hidden = !problems.querySelector("p");
    for (const [key, numbers] of Object.entries(sizes ?? {})) edit(key.toLowerCase(), numbers);
    place("results").classList.toggle("planner-stale", part === "quick" && !("glance" in parts));
  };

  // Fields for the pattern and the numbers of a model's config: each writes into the model's line.
  const edit = (key, numbers) => {
    const box = root.querySelector(`.planner-sizes[data-model="${key}"]`);
    const body = box.querySelector("div");
    box.hidden = !numbers.length;
    const names = numbers.map(([name]) => name).join();
    if (body.dataset.names !== names) {
      body.dataset.names = names;
      body.replaceChildren(...numbers.map(([name]) => {
        const label = document.createElement("label");
        const input = document.createElement("input");
        input.dataset.field = name;
        input.spellcheck = false;
        input.addEventListener("change", () => change(key, name, input.value.trim()));
        label.append(name, input);
        return label;
      }));
    }
    for (const [name, value] of numbers) {
      const input = body.querySelector(`[data-field="${name}"]`);
      if (input !== document.activeElement) input.value = value;
    }
  };

  const change = (key, name, text) => {
    const line = form.elements[key];
    const [base, ...changes] = line.value.split(/,(?=\s*[A-Za-z_]\w*=)/);
    const others = changes.filter((one) => one.split("=")[0].trim() !== name);
    line.value = [base, ...others, `${name}=${text}`].join(",");
    ask();
  };

  worker.onmessage = ({ data }) => {
    if (data.progress) status.textContent = `${data.progress}…`;
    if (data.ready) {
      status.textContent = "Ready: every change is computed in this page.";
      root.dataset.ready = "";
      keep(data.loaded);
    }
    if (data.failed) {
      status.textContent = `The planner cannot run here: ${data.failed}`;
      root.removeAttribute("aria-busy");
    }
    if (data.part === "export") return save(data.answer.parts.json);
    if (data.part && data.number === number) {
      fill(data.answer, data.part);
      root.dataset[data.part] = data.number;
      root.dataset.milliseconds = data.milliseconds;
      if (data.part === "quick") root.removeAttribute("aria-busy");
    }
  };
  worker.onerror = (event) => {
    status.textContent = `The planner cannot run here: ${event.message ?? "it did not load"}`;
  };

  // All that this page loaded, kept for a visit without a network: see offline.js.
  const keep = async (loaded) => {
    if (!navigator.serviceWorker) return;
    await navigator.serviceWorker.register(new URL("offline.js", location.origin + location.pathname));
    await navigator.serviceWorker.ready;
    const ours = performance.getEntriesByType("resource").map((entry) => entry.name);
    const page = location.origin + location.pathname;
    const all = new Set([page, ...ours, ...loaded].filter((url) => url.startsWith(location.origin)));
    const store = await caches.open("planner");
    await Promise.all([...all].map((url) => store.add(url).catch(() => {})));
    root.dataset.kept = all.size;
  };

  const save = (text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "plan.json";
    link.click();
    URL.revokeObjectURL(link.href);
  };

  form.addEventListener("input", ({ target }) => {
    show(target);
    if (target.name) ask();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  root.querySelector("[data-do=export]").addEventListener("click", () => {
    worker.postMessage({ part: "export", state: state(), number });
  });
  root.querySelector("[data-do=link]").addEventListener("click", async ({ target }) => {
    await navigator.clipboard.writeText(location.href);
    target.textContent = "Copied";
    setTimeout(() => (target.textContent = "Copy the link"), 1500);
  });
  root.querySelector("[data-do=reset]").addEventListener("click", () => {
    for (const field of fields) write(field, initial[field.name]);
    ask();
  });

  const given = new URLSearchParams(location.search);
  for (const field of fields) {
    write(field, given.get(field.name) ?? initial[field.name]);
    if (field.name === "config" && field.value) field.closest("details").open = true;
  }
  ask();
}
