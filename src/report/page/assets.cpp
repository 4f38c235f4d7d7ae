#include "report/page/assets.h"

namespace refract {

const char* const kPageStyle = R"css(
:root { --ink: #1f2430; --soft: #667085; --line: #e4e7ec; --paper: #ffffff; --wash: #f6f7f9; --accent: #2563c9; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--wash); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 8px 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 36px 0 10px; padding-bottom: 4px; border-bottom: 1px solid var(--line); }
h3 { font-size: 15px; margin: 20px 0 6px; overflow-wrap: anywhere; }
p { margin: 6px 0 12px; max-width: 860px; }
.subtitle { color: var(--soft); overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 16px; margin: 12px 0; }
figure { margin: 0; flex: 1 1 100%; min-width: 0; background: var(--paper); border: 1px solid var(--line);
  border-radius: 8px; padding: 10px 12px 6px; }
figure.half { flex: 1 1 calc(50% - 8px); min-width: min(480px, 100%); }
figcaption { font-weight: 600; font-size: 14px; }
.scroll { overflow-x: auto; margin: 10px 0 14px; background: var(--paper); border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { padding: 5px 12px; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tbody tr:last-child td { border-bottom: none; }
tbody tr:hover { background: #f0f5ff; }
tr.rule td { padding: 0; border-bottom: 2px solid #cbd2dc; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; cursor: pointer; user-select: none; }
th[data-order="up"]::after { content: " \2191"; }
th[data-order="down"]::after { content: " \2193"; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td { max-width: 560px; overflow-wrap: anywhere; }
pre { margin: 8px 0 14px; padding: 10px 14px; background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
  font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: 10px 0; }
summary { cursor: pointer; color: var(--accent); }
.controls { position: sticky; top: 0; z-index: 10; display: flex; gap: 12px; align-items: center; padding: 8px 0;
  background: var(--wash); border-bottom: 1px solid var(--line); font-size: 14px; }
.controls input { width: 220px; accent-color: var(--accent); }
.controls output { font-variant-numeric: tabular-nums; min-width: 3em; }
@media print { .controls { display: none; } body { background: white; } }
)css";

const char* const kPageScript = R"js(
"use strict";
(() => {
  // Exponential moving average, corrected for its start; gaps stay gaps.
  const smooth = (values, weight) => {
    let sum = 0, norm = 0;
    return values.map((v) => {
      if (v === null) return null;
      sum = weight * sum + (1 - weight) * v;
      norm = weight * norm + (1 - weight);
      return sum / norm;
    });
  };

  const smoothed = [];  // {canvas, raw: indices of faint traces, shown: indices, values}
  const draw = (source) => {
    const canvas = document.getElementById(source.dataset.figure);
    const figure = JSON.parse(source.textContent);
    const data = figure.data;
    if (figure.smoothing) {
      const count = data.length;
      const entry = { canvas, shown: [], faint: [], values: [] };
      for (let i = 0; i < count; ++i) {
        if (data[i].mode !== "lines") continue;
        entry.shown.push(i);
        entry.values.push(data[i].y);
        entry.faint.push(count + entry.faint.length);
        data.push({ ...data[i], opacity: 0.25, showlegend: false, hoverinfo: "skip", visible: false });
      }
      smoothed.push(entry);
    }
    Plotly.newPlot(canvas, data, figure.layout, {
      responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"],
      toImageButtonOptions: { format: "svg", filename: document.title },
    });
  };
  document.querySelectorAll("script[data-figure]").forEach((source) => {
    // What is folded away has no width yet; it is drawn when it opens.
    const fold = source.closest("details");
    if (fold && !fold.open) fold.addEventListener("toggle", () => draw(source), { once: true });
    else draw(source);
  });

  const control = document.getElementById("smoothing");
  if (control) {
    const apply = () => {
      const weight = Number(control.value);
      document.getElementById("smoothing-value").textContent = weight.toFixed(2);
      for (const { canvas, shown, faint, values } of smoothed) {
        if (!shown.length) continue;
        Plotly.restyle(canvas, { y: values.map((v) => (weight > 0 ? smooth(v, weight) : v)) }, shown);
        Plotly.restyle(canvas, { visible: weight > 0 && shown.length <= 6 }, faint);
      }
    };
    control.addEventListener("input", apply);
    if (Number(control.value) > 0) apply();  // a browser keeps it over a reload
  }

  const number = (text) => {
    const value = Number(text.replace(/[,%\s]/g, ""));
    return text.trim() === "" || Number.isNaN(value) ? null : value;
  };
  const compare = (a, b, sign) => {
    const [x, y] = [number(a), number(b)];
    if (x !== null && y !== null) return sign * (x - y);
    if ((x === null) !== (y === null)) return x === null ? 1 : -1;  // what is no number stands last
    return sign * a.localeCompare(b);
  };
  document.querySelectorAll("th").forEach((head) => head.addEventListener("click", () => {
    const order = head.dataset.order === "up" ? "down" : "up";
    head.parentNode.querySelectorAll("th").forEach((other) => delete other.dataset.order);
    head.dataset.order = order;
    const body = head.closest("table").tBodies[0];
    const cell = (row) => row.cells[head.cellIndex]?.textContent ?? "";
    [...body.rows].filter((row) => !row.classList.contains("rule"))
      .sort((a, b) => compare(cell(a), cell(b), order === "up" ? 1 : -1)).forEach((row) => body.append(row));
  }));
})();
)js";

}  // namespace refract
