"use strict";
const all = (what, where = document) => [...where.querySelectorAll(what)];
const one = (what, where = document) => where.querySelector(what);
const text = one("#text"), runtime = one("#runtime"), layer = one("#layer"), count = one("#count"), detail = one("#detail");

/* A row stays when its setting is meant or one of its cells is; cells that are not meant are dimmed. */
function filter() {
  const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
  let cells = 0, whole = 0, rows = 0;
  for (const section of all("section[data-runtime]")) {
    section.hidden = runtime.value !== "" && section.dataset.runtime !== runtime.value;
    for (const row of all("tbody tr", section)) {
      let meant = 0;
      const own = row.dataset.text;
      for (const cell of all("td", row)) {
        const said = own + " " + cell.dataset.text;
        const is = words.every((word) => said.includes(word)) && (layer.value === "" || cell.dataset.layers.split(" ").includes(layer.value));
        cell.classList.toggle("off", !is);
        const worth = cell.colSpan;
        whole += worth;
        if (is) meant += worth;
      }
      row.hidden = meant === 0;
      if (!section.hidden && meant) { cells += meant; rows += 1; }
    }
  }
  count.textContent = `${cells} of ${whole} cells in ${rows} rows`;
  const stop = one('td button[tabindex="0"]');
  if (!stop || !stop.offsetParent) {
    const seen = all("td button").find((button) => button.offsetParent);
    if (seen) choose(seen);
  }
}

function show(button) {
  const cell = button.closest("td"), row = cell.closest("tr");
  const put = (name, value) => { const at = one("#detail-" + name); at.textContent = value || ""; at.hidden = !value; at.previousElementSibling.hidden = !value; };
  one("#detail-title").textContent = cell.dataset.probe || row.dataset.setting;
  put("is", cell.dataset.is);
  put("setting", `${row.dataset.setting} (${row.closest("section").dataset.runtime})`);
  put("runs", row.dataset.runs);
  put("what", cell.dataset.what);
  put("errno", cell.dataset.errno);
  put("why", cell.dataset.why);
  put("log", cell.dataset.log);
  put("command", row.dataset.command);
  detail.showModal();
}

/* Arrows go from cell to cell; only the current one is reached by Tab. */
function go(from, down, right) {
  const rows = all("tbody tr:not([hidden])").filter((row) => !row.closest("section").hidden && one("button", row));
  const row = from.closest("tr");
  const across = all("button", row).filter((button) => button.offsetParent);
  let at = across.indexOf(from), to = from;
  if (right) to = across[at + right];
  else {
    const other = rows[rows.indexOf(row) + down];
    if (other) { const there = all("button", other).filter((button) => button.offsetParent); to = there[Math.min(at, there.length - 1)]; }
  }
  if (!to) return;
  choose(to);
  to.focus();
}
function choose(button) {
  for (const other of all('td button[tabindex="0"]')) other.tabIndex = -1;
  button.tabIndex = 0;
}

const KEYS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
document.addEventListener("keydown", (event) => {
  const at = document.activeElement;
  if (event.key === "/" && at !== text && !detail.open) { event.preventDefault(); text.focus(); text.select(); }
  else if (event.key === "Escape" && at === text) { text.value = ""; filter(); }
  else if (event.key in KEYS && at.matches("td button")) { event.preventDefault(); go(at, ...KEYS[event.key]); }
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("td button");
  if (button) { choose(button); show(button); }
});
for (const control of [text, runtime, layer]) control.addEventListener("input", filter);
one("form").addEventListener("submit", (event) => event.preventDefault());
filter();
