// Shows what /events says. Every text goes in as text, never as markup: ids and labels are other people's.
"use strict";

const SILENCE = 40000; // ms without a word, after which the stream is taken for broken; the server says one every 15 s
const AGAIN = 3000; // ms until the next attempt, where the browser makes none by itself
const SIGNS = { holds: "✓", differs: "✗", unknown: "?", "": "–" };
const WORDS = { holds: "holds", differs: "differs", unknown: "cannot tell", "": "not looked at" };
const ORDER = { differs: 0, unknown: 1, holds: 2, "": 3 };

const rows = new Map(); // id → what the server said last
const bodies = new Map(); // id → its part of the table
let columns = []; // names of checks
const at = (id) => document.getElementById(id);
const table = document.querySelector("table");
let stream = null;
let heard = 0;

function element(name, content, attributes = {}) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...[content].flat());
  return made;
}

const sign = (state) => [
  element("span", SIGNS[state], { class: `is ${state || "off"}`, "aria-hidden": "true" }),
  element("span", ` ${WORDS[state]}`, { class: "hidden" }),
];

function cell(content, kind) {
  return element("td", content, { role: "cell", class: kind });
}

function head() {
  const names = ["container", "verdict", ...columns, "denials"];
  at("head").replaceChildren(...names.map((name) => element("th", name, { role: "columnheader", scope: "col" })));
}

function draw(row) {
  const [profile, mode] = row.label;
  const about = [row.status, profile ? `under ${profile}${mode ? ` (${mode})` : ""}` : ""].filter(Boolean).join(", ");
  const denied = Object.entries(row.denials).map(([layer, count]) => `${layer}: ${count}`).join(", ");
  const check = (name, content, kind) => cell([element("span", `${name} `, { class: "name" }), ...[content].flat()], `check ${kind}`);
  const first = element("tr", [
    element("th", [row.id, element("span", about, { class: "about" })], { role: "rowheader", scope: "row" }),
    cell([
      element("span", [sign(row.verdict)[0], ` ${row.verdict ? WORDS[row.verdict] : "not verified"}`]),
      element("span", row.verdict ? new Date(row.time * 1000).toLocaleTimeString() : "", { class: "about" }),
    ], "verdict"),
    ...columns.map((name) => check(name, sign(row.checks[name]), row.checks[name] ? "" : "empty")),
    check("denials", denied || "0", denied ? "" : "empty"),
  ], { role: "row" });
  const body = element("tbody", first, { role: "rowgroup", class: `${row.verdict || "off"}-row`, "data-id": row.id });
  const lines = [
    ...row.drifts,
    ...row.why.map((line) => `cannot tell: ${line}`),
    ...(row.more ? [`and ${row.more} more`] : []),
  ];
  if (lines.length) {
    const list = element("ul", lines.map((line) => element("li", line)));
    body.append(element("tr", element("td", list, { role: "cell", colspan: columns.length + 3 }), { role: "row", class: "why" }));
  }
  return body;
}

const wanted = (row) =>
  row.id.toLowerCase().includes(at("find").value.trim().toLowerCase()) && !(at("bad").checked && !["differs", "unknown"].includes(row.verdict));

const before = (a, b) => ORDER[a.verdict] - ORDER[b.verdict] || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);

function place(id) {
  const row = rows.get(id);
  bodies.get(id)?.remove();
  const body = draw(row);
  body.hidden = !wanted(row);
  bodies.set(id, body);
  const next = [...table.tBodies].find((other) => before(row, rows.get(other.dataset.id)) < 0);
  table.insertBefore(body, next || null);
}

function all() {
  head();
  for (const body of table.tBodies) body.hidden = !wanted(rows.get(body.dataset.id));
  sum();
}

function sum() {
  const count = { holds: 0, differs: 0, unknown: 0, "": 0 };
  for (const row of rows.values()) count[row.verdict] += 1;
  const parts = [`${rows.size} container${rows.size === 1 ? "" : "s"}`, `${count.holds} hold${count.holds === 1 ? "s" : ""}`];
  if (count.differs) parts.push(`${count.differs} differ${count.differs === 1 ? "s" : ""}`);
  if (count.unknown) parts.push(`${count.unknown} cannot be told`);
  if (count[""]) parts.push(`${count[""]} not verified`);
  at("sum").textContent = parts.join(" · ");
  document.title = (count.differs ? `✗ ${count.differs} · ` : count.unknown ? `? ${count.unknown} · ` : "") + "rundlet watch";
  const shown = [...table.tBodies].some((body) => !body.hidden);
  at("none").hidden = shown;
  at("none").textContent = rows.size ? "No container is as chosen above." : "No container is here.";
}

function take(row) {
  const known = rows.get(row.id);
  rows.set(row.id, row);
  place(row.id);
  if (known && known.verdict !== row.verdict && row.verdict) at("news").textContent = `${row.id} ${WORDS[row.verdict]}`;
}

function forget(id) {
  rows.delete(id);
  bodies.get(id)?.remove();
  bodies.delete(id);
}

function say(state, text) {
  const link = at("link");
  if (link.dataset.state !== state || link.textContent !== text) {
    link.dataset.state = state;
    link.textContent = text;
  }
  document.body.classList.toggle("stale", state === "lost");
}

function lost() {
  const since = heard ? `; what is here is of ${new Date(heard).toLocaleTimeString()}` : "";
  say("lost", `connection lost, trying again${since}`);
}

function connect() {
  stream?.close();
  stream = new EventSource("/events");
  const hear = (name, act) =>
    stream.addEventListener(name, (event) => {
      heard = Date.now();
      act(JSON.parse(event.data));
      say("live", "live");
    });
  hear("hello", (hello) => {
    for (const id of [...rows.keys()]) if (!hello.ids.includes(id)) forget(id);
    columns = hello.columns;
    all();
  });
  hear("row", (row) => { take(row); sum(); });
  hear("gone", (ids) => { ids.forEach(forget); sum(); });
  hear("beat", () => {});
  stream.addEventListener("error", () => {
    lost();
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, AGAIN); // it gives up after any answer but 200
  });
}

at("choose").addEventListener("input", all);
at("choose").addEventListener("submit", (event) => event.preventDefault());
setInterval(() => {
  if (stream && stream.readyState === EventSource.OPEN && Date.now() - heard > SILENCE) { lost(); connect(); }
}, 5000);
head();
connect();
