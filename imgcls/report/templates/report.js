"use strict";
const value = (row, column) => {
  const cell = row.cells[column], number = cell.querySelector("[data-value]");
  return number ? Number(number.dataset.value) : cell.textContent.trim();
};
const compare = (a, b) => {
  const numbers = typeof a === "number" && typeof b === "number";
  if (numbers) return a - b;
  return typeof a === typeof b ? a.localeCompare(b, undefined, { numeric: true }) : typeof a === "number" ? 1 : -1;
};
const sort = (table, heading) => {
  const up = heading.getAttribute("aria-sort") === "descending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows], column = heading.cellIndex;
  rows.sort((a, b) => compare(value(a, column), value(b, column)) * (up ? 1 : -1));
  table.tBodies[0].append(...rows);
};
for (const table of document.querySelectorAll("table[data-sortable]")) {
  for (const heading of table.tHead.rows[0].cells) {
    if ("fixed" in heading.dataset) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(table, heading));
    heading.append(button);
  }
}
for (const list of document.querySelectorAll("[data-filter]")) {
  const items = list.tBodies ? [...list.tBodies[0].rows] : [...list.children];
  const input = document.createElement("input"), shown = document.createElement("span");
  input.type = "search";
  input.placeholder = input.ariaLabel = list.dataset.filter;
  shown.className = "muted";
  shown.setAttribute("role", "status");
  input.addEventListener("input", () => {
    const text = input.value.toLowerCase();
    for (const item of items) item.hidden = !(item.dataset.text ?? item.cells[0].textContent).toLowerCase().includes(text);
    shown.textContent = text ? `${items.filter((item) => !item.hidden).length} of ${items.length}` : "";
  });
  const line = document.createElement("p");
  line.className = "filter";
  line.append(input, shown);
  (list.tBodies ? list.parentElement : list).before(line);
}
for (const map of document.querySelectorAll("[data-names]")) {
  const names = JSON.parse(map.dataset.names), picture = map.querySelector("img"), output = map.querySelector("output");
  picture.addEventListener("mousemove", (event) => {
    const box = picture.getBoundingClientRect();
    const at = (position, size) => names[Math.min(names.length - 1, Math.max(0, Math.floor((position / size) * names.length)))];
    output.textContent = `${at(event.clientY - box.top, box.height)} → ${at(event.clientX - box.left, box.width)}`;
  });
}
