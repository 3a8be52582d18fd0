// Tables sort by their headers and filter by a text, and sheets show their end; without this script all stays as it is.
"use strict";

function value(row, column) {
  const cell = row.cells[column];
  return { text: cell.textContent, number: cell.dataset.v === undefined ? NaN : Number(cell.dataset.v) };
}

function compare(a, b) {
  const known = [!Number.isNaN(a.number), !Number.isNaN(b.number)];
  if (known[0] && known[1]) return a.number - b.number;
  return a.text.localeCompare(b.text);
}

function sort(table, column, direction) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row, place) => ({ row, place, key: value(row, column) }));
  const empty = (one) => one.key.text.trim() === "";
  rows.sort((a, b) => {
    if (empty(a) !== empty(b)) return empty(a) ? 1 : -1; // what is empty comes last both ways
    return direction * compare(a.key, b.key) || a.place - b.place;
  });
  body.append(...rows.map((one) => one.row));
}

function sorts(table) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const first = table.tBodies[0].rows[0];
      const numbers = first !== undefined && first.cells[column].dataset.v !== undefined;
      const up = before === null ? !numbers : before === "descending"; // numbers: the largest first
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      sort(table, column, up ? 1 : -1);
    });
  });
}

function filters(table, input, output) {
  const rows = Array.from(table.tBodies[0].rows);
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    output.textContent = wanted.length ? `${shown} of ${rows.length} rows` : "";
  });
}

for (const sheet of document.querySelectorAll(".sheet")) sheet.scrollTop = sheet.scrollHeight; // what was refused

for (const box of document.querySelectorAll(".table")) {
  const table = box.querySelector("table");
  sorts(table);
  filters(table, box.querySelector("input"), box.querySelector("output"));
}
