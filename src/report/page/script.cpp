#include "report/page/script.h"

namespace refract {

const char* const kPageScript = R"js(
"use strict";
(() => {
  const dark = window.matchMedia("screen and (prefers-color-scheme: dark)");
  const colors = () => dark.matches
    ? { ink: "#e4e7ec", soft: "#98a2b3", grid: "#2c323d", line: "#667085", legend: "rgba(25,28,34,0.7)",
        paper: "#191c22", shade: "rgba(152,162,179,0.15)", tool: "#667085", active: "#84adf5" }
    : { ink: "#1f2430", soft: "#667085", grid: "#e8ebf0", line: "#98a2b3", legend: "rgba(255,255,255,0.7)",
        paper: "#ffffff", shade: "rgba(102,112,133,0.12)", tool: "#98a2b3", active: "#2563c9" };

  // Labels of ticks: all as decimals, or all with powers of ten.
  const labels = (values) => {
    const powers = values.map((value) => Math.floor(Math.log10(value) + 1e-9));
    if (Math.min(...powers) >= -4 && Math.max(...powers) <= 4) return values.map((value) => String(Number(value.toPrecision(3))));
    return values.map((value, i) => {
      const digits = Number((value / 10 ** powers[i]).toPrecision(3));
      return (digits === 1 ? "" : digits + "·") + `10<sup>${powers[i]}</sup>`;
    });
  };
  // At most that many ticks of a logarithmic axis from 10^low to 10^high, at round numbers.
  const logTicks = (low, high, most) => {
    const span = high - low;
    if (span < 0.4) {  // nearly linear
      const [a, b] = [10 ** low, 10 ** high];
      const rough = (b - a) / Math.min(4, most), unit = 10 ** Math.floor(Math.log10(rough));
      const step = unit * [1, 2, 5, 10].find((n) => n * unit >= rough);
      const values = [];
      for (let i = Math.ceil(a / step); i * step <= b; ++i) values.push(Number((i * step).toPrecision(12)));
      return values;
    }
    const choose = (parts, every) => {
      const values = [];
      for (let power = Math.floor(low); power <= high; ++power) {
        if (power % every !== 0) continue;
        for (const part of parts) {
          const place = power + Math.log10(part);
          if (place >= low - 1e-9 && place <= high + 1e-9) values.push(Number((part * 10 ** power).toPrecision(12)));
        }
      }
      return values;
    };
    for (const parts of [[1, 1.5, 2, 3, 4, 5, 7], [1, 2, 3, 5], [1, 2, 5], [1, 3], [1]]) {
      const values = choose(parts, 1);
      if (values.length <= most) return values;
    }
    return choose([1], Math.ceil(span / most));
  };
  const setTicks = (canvas) => {
    const update = {};
    for (const name of ["xaxis", "yaxis"]) {
      const axis = canvas._fullLayout[name];
      if (!axis || axis.type !== "log") continue;
      const room = Math.floor(axis._length / (name === "xaxis" ? 52 : 24));  // pixels of a label
      const values = logTicks(Math.min(...axis.range), Math.max(...axis.range), Math.max(2, Math.min(9, room)));
      if (JSON.stringify(values) === JSON.stringify(canvas.layout[name].tickvals)) continue;
      Object.assign(update, { [`${name}.tickmode`]: "array", [`${name}.tickvals`]: values,
                              [`${name}.ticktext`]: labels(values) });
    }
    if (Object.keys(update).length) Plotly.relayout(canvas, update);
  };

  // y at x on the line through the points (xs, ys), which ascend in x; straight on beyond its ends.
  const interpolate = (xs, ys, x) => {
    let i = xs.findIndex((at) => at >= x);
    if (i < 0) i = xs.length - 1;
    i = Math.max(1, i);
    if (xs.length < 2 || xs[i] === xs[i - 1]) return ys[0];
    return ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1]);
  };

  const drawn = [];  // {canvas, figure, axis: the chosen x, shown, faint, values: of smoothing}
  // What stands in a plot beside its curves, in the colours of the screen and on the chosen x axis.
  const extras = ({ figure, axis }) => {
    const c = colors(), shapes = [], annotations = [], layout = figure.layout;
    const text = { showarrow: false, font: { size: 11, color: c.soft } };
    const onAxis = (which, value) => layout[which].type === "log" ? Math.log10(value) : value;
    const other = axis > 0 ? figure.other_x[axis - 1].x : null;
    const source = other ? other.findIndex((x) => x && x.length > 1) : -1;
    const along = (x) => source < 0 ? x : interpolate(figure.data[source].x, other[source], x);
    for (const { from, to, label } of figure.shades ?? []) {
      shapes.push({ type: "rect", xref: "x", yref: "paper", x0: along(from), x1: along(to), y0: 0, y1: 1,
                    layer: "below", line: { width: 0 }, fillcolor: c.shade });
      annotations.push({ ...text, xref: "x", yref: "paper", x: along(to), y: 1, xanchor: "right", yanchor: "top", text: label });
    }
    for (const { y, label } of figure.levels ?? []) {
      shapes.push({ type: "line", xref: "paper", yref: "y", x0: 0, x1: 1, y0: y, y1: y, line: { color: c.soft, width: 1.4, dash: "dot" } });
      annotations.push({ ...text, xref: "paper", yref: "y", x: 1, y: onAxis("yaxis", y), xanchor: "right", yanchor: "bottom", text: label });
    }
    for (const { x, y, text: words } of figure.notes ?? []) {
      annotations.push({ ...text, font: { size: 12, color: c.ink }, bgcolor: c.legend, xref: "x", yref: "y", yanchor: "bottom", yshift: 6,
                         x: onAxis("xaxis", x), y: onAxis("yaxis", y), text: words });
    }
    return { shapes, annotations };
  };
  const dress = (entry) => {
    const c = colors(), update = { "font.color": c.ink, "legend.bgcolor": c.legend, "modebar.color": c.tool, "modebar.activecolor": c.active };
    for (const name of ["xaxis", "yaxis"]) {
      Object.assign(update, { [`${name}.gridcolor`]: c.grid, [`${name}.linecolor`]: c.line, [`${name}.tickcolor`]: c.line });
    }
    return Object.assign(update, extras(entry));
  };
  const put = (layout, update) => {
    for (const [path, value] of Object.entries(update)) {
      const names = path.split("."), last = names.pop();
      names.reduce((node, name) => node[name] ??= {}, layout)[last] = value;
    }
  };
  // On a narrow screen the legend lies below the plot, and margins shrink.
  const fit = (canvas, { layout, data }) => {
    if (canvas.clientWidth >= 520) return;
    Object.assign(layout.margin, { l: 46, r: 34 });
    const entries = data.filter((trace) => trace.showlegend).length;
    if (entries > 0) {
      put(layout, { legend: { ...layout.legend, orientation: "h", x: 0, xanchor: "left", y: -0.22, yanchor: "top" } });
      canvas.style.height = `${canvas.clientHeight + 22 * Math.ceil(entries / 2)}px`;
    }
    // Of a plane with equal units the width decides how large it is.
    if (layout.yaxis.scaleanchor) canvas.style.height = `${Math.min(canvas.clientHeight, canvas.clientWidth)}px`;
    for (const trace of data) {
      if (trace.colorbar) Object.assign(trace.colorbar, { thickness: 8, title: { text: "" } });
      if (trace.texttemplate && trace.z[0]?.length > 8) delete trace.texttemplate;  // too small to read
    }
  };

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
  const draw = (source) => {
    const canvas = document.getElementById(source.dataset.figure);
    const figure = JSON.parse(source.textContent);
    const { data, layout } = figure;
    const entry = { canvas, figure, axis: 0, shown: [], faint: [], values: [], copies: [] };
    if (figure.smoothing) {
      const count = data.length;
      for (let i = 0; i < count; ++i) {
        if (data[i].mode !== "lines") continue;
        entry.shown.push(i);
        entry.values.push(data[i].y);
        entry.faint.push(count + entry.faint.length);
        data.push({ ...data[i], opacity: 0.25, showlegend: false, hoverinfo: "skip", visible: false });
        for (const choice of figure.other_x) choice.x.push(choice.x[i]);
      }
    }
    fit(canvas, figure);
    put(layout, dress(entry));
    drawn.push(entry);
    Plotly.newPlot(canvas, data.map((trace) => ({ ...trace })), layout, {
      responsive: true, displaylogo: false, displayModeBar: "hover", modeBarButtonsToRemove: ["lasso2d", "select2d"],
      toImageButtonOptions: { format: "svg", filename: document.title },
    }).then(() => {
      setTicks(canvas);
      canvas.on("plotly_relayout", () => setTicks(canvas));
    });
    return entry;
  };

  // The x axes that the page's plots have, in the order of their first appearance.
  const chooser = document.getElementById("x-axis");
  const choose = (entry) => {
    const wanted = chooser.value, choices = entry.figure.other_x ?? [];
    const axis = wanted === "" ? 0 : choices.findIndex((choice) => choice.label === wanted) + 1;
    if ((axis === 0 && wanted !== "") || axis === entry.axis) return;
    entry.axis = axis;
    const { data, layout } = entry.figure;
    const x = axis === 0 ? data.map((trace) => trace.x) : choices[axis - 1].x.map((list) => list ?? []);
    Plotly.update(entry.canvas, { x }, {
      "xaxis.title.text": axis === 0 ? entry.title : choices[axis - 1].label, "xaxis.autorange": true, ...extras(entry),
    }, data.map((_, index) => index));
  };
  const control = document.getElementById("smoothing");
  const apply = (entry) => {
    const weight = Number(control.value);
    document.getElementById("smoothing-value").textContent = weight.toFixed(2);
    const { canvas, shown, faint, values } = entry;
    if (shown.length === 0) return;
    const withRaw = weight > 0 && shown.length <= 6;
    Plotly.restyle(canvas, { y: values.map((list) => weight > 0 ? smooth(list, weight) : list) }, shown);
    Plotly.restyle(canvas, { visible: withRaw }, faint);
  };
  const start = (source) => {
    const entry = draw(source);
    entry.title = entry.figure.layout.xaxis.title.text;
    if (chooser && chooser.value !== "") choose(entry);
    if (control && Number(control.value) > 0) apply(entry);  // a browser keeps it over a reload
  };
  document.querySelectorAll("script[data-figure]").forEach((source) => {
    // What is folded away has no width yet; it is drawn when it opens.
    const fold = source.closest("details");
    if (fold && !fold.open) fold.addEventListener("toggle", () => start(source), { once: true });
    else start(source);
  });
  chooser?.addEventListener("change", () => drawn.forEach(choose));
  control?.addEventListener("input", () => drawn.forEach(apply));
  dark.addEventListener("change", () => drawn.forEach((entry) => Plotly.relayout(entry.canvas, dress(entry))));

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
