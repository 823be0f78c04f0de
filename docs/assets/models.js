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

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(column));
    head.replaceChildren(button);
  });
  heads[0].setAttribute("aria-sort", "ascending");

  const bar = document.querySelector(".models-filter");
  const choices = [...bar.querySelectorAll("button")];
  const found = bar.querySelector("[role=status]");

  const filter = (word, chosen) => {
    rows.forEach((row) => {
      row.hidden = word !== "all" && !value(row, KIND).split(" ").includes(word);
    });
    choices.forEach((choice) => choice.setAttribute("aria-pressed", choice === chosen));
    found.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };

  choices.forEach((choice) => {
    choice.addEventListener("click", () => filter(choice.textContent, choice));
  });
}
