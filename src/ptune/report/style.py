"""The style of a report, and the few lines of script that sort its tables. Both go into the page."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f5f6f8; --surface: #fff; --ink: #161a22; --soft: #586071; --line: #dde1e8; --edge: #8a93a3;
  --accent: #3457d5; --on-accent: #fff; --accent-wash: #eef2fe; --other: #8fa3ea; --track: #edeff4;
  --bad: #a3231c; --bad-fill: #c8453d; --bad-wash: #fdeeed; --bad-line: #eec5c2; --good: #1c6b3c;
  --shadow: 0 1px 2px rgb(20 26 40 / 6%);
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ground: #0f1217; --surface: #181c23; --ink: #e9ecf2; --soft: #a0a9b8; --line: #2c323d; --edge: #6e7889;
    --accent: #8ea8ff; --on-accent: #0f1530; --accent-wash: #222b47; --other: #6478ba; --track: #252b35;
    --bad: #ffaca5; --bad-fill: #f0837a; --bad-wash: #35201f; --bad-line: #63332f; --good: #7fd6a2;
    --shadow: none;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 1rem; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif;
}
header, main, footer { max-width: 84rem; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 1.75rem; }
.brand { color: var(--soft); font-size: .85rem; font-weight: 600; margin: 0; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .1rem 0 .2rem; letter-spacing: -.015em; overflow-wrap: anywhere; }
header .about { margin: 0; color: var(--soft); overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: 1rem 0 0; font-size: .9rem; }
a { color: var(--accent); text-underline-offset: .18em; text-decoration-thickness: 1px; }
nav a { text-decoration: none; } nav a:hover { text-decoration: underline; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: .2rem; }
main { padding-bottom: 1rem; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; letter-spacing: -.01em; }
h3 { font-size: .95rem; font-weight: 600; margin: 0; }
.panel {
  background: var(--surface); border: 1px solid var(--line); border-radius: .75rem; box-shadow: var(--shadow);
  padding: 1.1rem 1.25rem 1.25rem; min-width: 0;
}
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
section > * + .panel, section > * + .grid { margin-top: 1rem; }
section > h2 + * { margin-top: 0 !important; }
.tiles {
  display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); margin: 1.5rem 0 0; padding: 0;
}
.tile { padding: .8rem 1rem .85rem; }
.tile dt { color: var(--soft); font-size: .85rem; }
.tile dt::first-letter { text-transform: uppercase; }
.tile dd { margin: 0; font-size: 1.5rem; font-weight: 650; line-height: 1.3; letter-spacing: -.015em; overflow-wrap: anywhere; }
.tile dd small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); letter-spacing: 0; }
.hint { color: var(--soft); font-size: .875rem; margin: .2rem 0 .75rem; max-width: 46rem; }
.notice {
  background: var(--bad-wash); color: var(--bad); border: 1px solid var(--bad-line); border-radius: .5rem;
  padding: .65rem .9rem; margin: 1rem 0 0; overflow-wrap: anywhere;
}

svg { display: block; width: 100%; max-width: 34rem; height: auto; margin: 0 auto; overflow: visible; }
.matrix svg { max-width: 44rem; }
.matrix.small svg { max-width: 30rem; }
svg text { font-size: 11px; fill: var(--ink); }
svg .soft { fill: var(--soft); } svg .name { fill: var(--soft); font-weight: 600; } svg .small { font-size: 9px; }
svg .bad-text { fill: var(--bad); font-weight: 600; }
svg .number { fill: var(--ink); } svg .on { fill: var(--on-accent); font-weight: 600; }
svg .grid { stroke: var(--line); stroke-width: 1; } svg .axis { stroke: var(--edge); stroke-width: 1; }
svg .mark { stroke: var(--edge); stroke-width: 1.25; stroke-dasharray: 4 4; fill: none; }
svg .cut { stroke: var(--bad-fill); stroke-width: 1.5; stroke-dasharray: 4 3; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .line.accent { stroke: var(--accent); } svg .line.other { stroke: var(--other); }
svg .fill.accent { fill: var(--accent); } svg .fill.other { fill: var(--other); } svg .fill.bad { fill: var(--bad-fill); }
svg .see-through { fill-opacity: .55; } svg .track { fill: var(--track); fill-opacity: .55; }

.scroll { overflow: auto; } .scroll.long { max-height: 34rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .6rem; text-align: right; vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-weight: 600; font-size: .825rem; position: sticky; top: 0; background: var(--surface); white-space: nowrap; }
th:first-child, td:first-child, .left { text-align: left; }
th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
td:first-child, .left { overflow-wrap: anywhere; } .sorted td:first-child { min-width: 7rem; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th button:hover { color: var(--ink); }
th[aria-sort=ascending] button::after { content: " ↑"; } th[aria-sort=descending] button::after { content: " ↓"; }
.bar { display: inline-block; vertical-align: .1em; width: 4.5rem; height: .45rem; border-radius: .25rem; background: var(--track); overflow: hidden; margin-right: .5rem; }
.bar b { display: block; height: 100%; border-radius: .25rem; background: var(--accent); }
.rows { list-style: none; margin: 0; padding: 0; }
.rows li { border-top: 1px solid var(--line); padding: .65rem 0; }
.rows li:first-child { border-top: 0; padding-top: 0; } .rows li:last-child { padding-bottom: 0; }
.rows p { margin: 0; overflow-wrap: anywhere; white-space: pre-line; }
.rows p + p { margin-top: .25rem; }
.verdict { display: flex; flex-wrap: wrap; gap: .1rem .75rem; align-items: baseline; font-size: .875rem; color: var(--soft); margin-bottom: .15rem; overflow-wrap: anywhere; }
.verdict b { color: var(--ink); font-weight: 600; } .verdict .wrong b { color: var(--bad); } .verdict .right b { color: var(--good); }
.verdict .number { margin-left: auto; white-space: nowrap; }
details summary { cursor: pointer; color: var(--accent); font-size: .85rem; }
.facts { margin: 0; display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: .3rem 2rem; font-size: .9rem; }
.facts div { display: grid; grid-template-columns: 11rem minmax(0, 1fr); gap: .75rem; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; }

.four .facts div { grid-template-columns: 7.5rem minmax(0, 1fr); }
.four { grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }
.panel h3 + .facts { margin-top: .6rem; }
code { font: .85em var(--mono); }
footer { color: var(--soft); font-size: .85rem; padding-top: 1.5rem; padding-bottom: 2.5rem; }
@media (max-width: 40rem) {
  header, main, footer { padding-left: 1rem; padding-right: 1rem; }
  header { padding-top: 1.1rem; } h1 { font-size: 1.4rem; }
  .panel { padding: .9rem 1rem 1rem; } .facts div { grid-template-columns: 42% minmax(0, 1fr); } .tiles { gap: .6rem; grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .tile dd { font-size: 1.25rem; } .bar { display: none; } th, td { padding: .35rem .35rem; } .verdict .number { margin-left: 0; }
  .scroll.long { max-height: 26rem; }
  svg text { font-size: 12.5px; } svg .small { font-size: 10px; }
}
@media print {
  body { background: #fff; font-size: 10.5pt; } nav, th button::after { display: none; }
  .scroll.long { max-height: none; overflow: visible; } .panel { box-shadow: none; }
  .tile, .rows li, svg, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .grid { grid-template-columns: 1fr 1fr; } svg .fill, .bar b, .bar { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

# A table with the class `sorted` can be sorted by its columns. Without the script it is a plain table.
SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.sorted")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const words = column === 0;
      const before = head.getAttribute("aria-sort");
      const rising = before ? before === "descending" : words;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const rows = [...table.tBodies[0].rows].sort((a, b) =>
        words ? value(a).localeCompare(value(b)) : Number(value(a)) - Number(value(b)));
      table.tBodies[0].append(...(rising ? rows : rows.reverse()));
    });
  });
}
"""
