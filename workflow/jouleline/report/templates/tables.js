// Sort and filter of long tables. Without this script the page is whole, and nothing else is allowed to run on it.
const FEW = 8;
const value = (cell) => {
  const text = cell.dataset.v ?? cell.textContent.replace(/[\u202f\u00a0 ]/g, "").replace("\u2212", "-");
  return text === "\u2013" ? null : Number.isNaN(parseFloat(text)) ? cell.textContent : parseFloat(text);
};
const order = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
function sort(table, column, head) {
  const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
  const groups = [];
  for (const row of table.tBodies[0].rows) {
    if (row.className === "group" || !groups.length) groups.push({ head: row.className === "group" ? row : null, rows: [] });
    if (row.className !== "group") groups.at(-1).rows.push([value(row.cells[column]), row]);
  }
  for (const { head: first, rows } of groups) {
    // What is unknown stands last, whichever way.
    rows.sort(([a], [b]) => (a === null ? (b === null ? 0 : 1) : b === null ? -1 : down * order(a, b)));
    table.tBodies[0].append(...(first ? [first] : []), ...rows.map(([, row]) => row));
  }
}
for (const table of document.querySelectorAll("table")) {
  const rows = [...table.tBodies[0].rows];
  if (rows.length < FEW) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, column, head));
    head.append(button);
  });
  const input = document.createElement("input");
  Object.assign(input, { type: "search", placeholder: "filter rows", ariaLabel: `Filter: ${table.caption.textContent}` });
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of rows)
      row.hidden = row.className !== "group" && !words.every((word) => row.textContent.toLowerCase().includes(word));
  });
  table.caption.append(input);
}
