"use strict";
// Sort the table: first numbers by value, then texts by letters; missing values always come last.
const table = document.getElementById("runs");
const heads = [...table.tHead.rows[0].cells];
const collator = new Intl.Collator("en", { numeric: true });

function key(cell) {
  if (cell.dataset.value !== undefined) return { rank: 0, value: Number(cell.dataset.value) };
  return { rank: cell.classList.contains("missing") ? 2 : 1, value: cell.textContent };
}

function sortBy(column) {
  const falling = heads[column].getAttribute("aria-sort") === "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", falling ? "descending" : "ascending");
  const keyed = [...table.tBodies[0].rows].map((row) => ({ row, ...key(row.cells[column]) }));
  const compare = (a, b) => (a.rank === 0 ? a.value - b.value : collator.compare(a.value, b.value));
  keyed.sort((a, b) => a.rank - b.rank || (falling ? -1 : 1) * compare(a, b));
  table.tBodies[0].append(...keyed.map((one) => one.row));
}

heads.forEach((head, column) => {
  const button = document.createElement("button"); // for the keyboard; a click anywhere on the heading does the same
  button.type = "button";
  button.ariaLabel = `sort by ${head.textContent}`;
  head.append("\u00a0", button);
  head.classList.add("sortable");
  head.addEventListener("click", () => sortBy(column));
});
document.getElementById("hint").hidden = false;
