// Sorts and filters the table of models. Without this file the table is complete, in order of names.
"use strict";
{
  const table = document.querySelector(".models table");
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows];
  const KIND = heads.findIndex((head) => head.textContent === "Kind");
  const value = (row, column) => row.cells[column].dataset.value;

  const compare = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);

  const sort = (column) => {
    const down = heads[column].getAttribute("aria-sort") === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    rows.sort((a, b) => compare(value(a, column), value(b, column)) * (down ? -1 : 1));
    table.tBodies[0].append(...rows);
  };

  const button = (label, press) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = label;
    made.addEventListener("click", press);
    return made;
  };

  heads.forEach((head, column) => {
    head.replaceChildren(button(head.textContent, () => sort(column)));
  });
  heads[0].setAttribute("aria-sort", "ascending");

  const words = new Set(rows.flatMap((row) => value(row, KIND).split(" ")));
  const found = document.createElement("span");
  found.setAttribute("role", "status");

  const filter = (word, chosen) => {
    rows.forEach((row) => {
      row.hidden = word !== "all" && !value(row, KIND).split(" ").includes(word);
    });
    choices.forEach((choice) => choice.setAttribute("aria-pressed", choice === chosen));
    found.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };

  const choices = ["all", ...words].map((word) => {
    const choice = button(word, () => filter(word, choice));
    return choice;
  });
  const bar = document.createElement("div");
  bar.className = "models-filter";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", "Kinds of models to show");
  bar.append(...choices, found);
  table.closest(".models").prepend(bar);
  filter("all", choices[0]);
}
