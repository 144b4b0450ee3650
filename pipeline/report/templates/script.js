"use strict";
// Sorting: a click on a header orders the rows by data-sort (a number or text) of that column.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = table.querySelectorAll("thead tr:last-child th");
  headers.forEach((header, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const key = (row) => row.cells[index].dataset.sort ?? row.cells[index].textContent.trim();
      const order = (a, b) => {
        if (a === "" || b === "") return (a === "") - (b === "");  // holes stay at the end
        const difference = Number(a) - Number(b);
        return (down ? -1 : 1) * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
      };
      [...body.rows].sort((a, b) => order(key(a), key(b))).forEach((row) => body.append(row));
    });
  });
}
// The way back from a number: a click shows what `python -m pipeline trace` prints.
let traces = JSON.parse(document.getElementById("traces").textContent);
const dialog = document.getElementById("trace");
// Where the runs were made there is a file beside this page, which git ignores, that also knows their commit,
// hardware, time and MLflow run. A frame may fail to find it without a word.
const machine = document.createElement("iframe");
function askMachine() {
  if (machine.isConnected || !dialog.dataset.local) return;
  machine.hidden = true;
  machine.src = dialog.dataset.local;
  document.body.append(machine);
}
window.addEventListener("message", (event) => {
  if (event.source !== machine.contentWindow) return;
  traces = event.data;
  show(document.getElementById("trace-title").textContent);
});
function line(list, key, value) {
  const term = document.createElement("dt");
  const text = document.createElement("dd");
  term.textContent = key;
  if (/^https?:\/\//.test(value)) {
    const link = document.createElement("a");
    link.href = link.textContent = value;
    text.append(link);
  } else {
    text.textContent = value;
  }
  list.append(term, text);
}
function show(cell) {
  const content = document.getElementById("trace-content");
  content.replaceChildren();
  document.getElementById("trace-title").textContent = cell;
  for (const group of traces[cell] ?? []) {
    const list = document.createElement("dl");
    for (const [key, value] of group) line(list, key, value);
    content.append(list);
  }
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("button.trace");
  if (!button) return;
  askMachine();
  show(button.dataset.cell);
  dialog.showModal();
});
// Light or dark: as the system says, until somebody clicks.
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
