#include "report/page/style.h"

namespace refract {

const char* const kPageStyle = R"css(
:root { color-scheme: light dark; --ink: #1f2430; --soft: #667085; --line: #e4e7ec; --paper: #ffffff; --wash: #f6f7f9;
  --accent: #2563c9; --hover: #f0f5ff; --rule: #cbd2dc; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ec; --soft: #98a2b3; --line: #2c323d; --paper: #191c22; --wash: #111317;
    --accent: #84adf5; --hover: #222a38; --rule: #475467; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--wash); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 8px 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 36px 0 10px; padding-bottom: 4px; border-bottom: 1px solid var(--line); }
h3 { font-size: 15px; margin: 20px 0 6px; overflow-wrap: anywhere; }
p { margin: 6px 0 12px; max-width: 860px; overflow-wrap: anywhere; }
.subtitle, footer { color: var(--soft); overflow-wrap: anywhere; }
footer { margin-top: 40px; padding-top: 8px; border-top: 1px solid var(--line); font-size: 13px; }
code { font: 0.93em/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 2px 18px; margin: 12px 0 4px; font-size: 14px; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: 16px; margin: 12px 0; }
figure { margin: 0; flex: 1 1 100%; min-width: 0; background: var(--paper); border: 1px solid var(--line);
  border-radius: 8px; padding: 10px 12px 6px; }
figure.half { flex: 1 1 calc(50% - 8px); min-width: min(480px, 100%); }
figcaption { font-weight: 600; font-size: 14px; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 10px 0 14px; background: var(--paper); border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { padding: 5px 12px; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tbody tr:last-child td { border-bottom: none; }
tbody tr:hover { background: var(--hover); }
tr.rule td { padding: 0; border-bottom: 2px solid var(--rule); }
th { color: var(--soft); font-weight: 600; white-space: nowrap; cursor: pointer; user-select: none; }
th[data-order="up"]::after { content: " \2191"; }
th[data-order="down"]::after { content: " \2193"; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td { max-width: 560px; overflow-wrap: anywhere; }
td:not(.number) { min-width: 7em; }
pre { margin: 8px 0 14px; padding: 10px 14px; background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
  font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: 10px 0; }
summary { cursor: pointer; color: var(--accent); }
.controls { position: sticky; top: 0; z-index: 10; display: flex; flex-wrap: wrap; gap: 6px 12px; align-items: center;
  padding: 8px 0; background: var(--wash); border-bottom: 1px solid var(--line); font-size: 14px; }
.controls label + label, .controls output + label { margin-left: 18px; }
.controls input { width: 200px; accent-color: var(--accent); }
.controls output { font-variant-numeric: tabular-nums; min-width: 3em; }
.controls select { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line);
  border-radius: 6px; padding: 2px 6px; }
/* The toolbar is there when it is wanted. */
figure .modebar { opacity: 0 !important; transition: opacity 0.15s; }
figure:hover .modebar, figure:focus-within .modebar { opacity: 1 !important; }
@media (max-width: 640px) {
  main { padding: 12px 10px 40px; }
  h1 { font-size: 21px; }
  figure { padding: 8px 4px 4px; }
  figcaption { padding: 0 6px; }
  th, td { padding: 4px 8px; }
  .facts { grid-template-columns: minmax(0, 1fr); gap: 0; }
  .facts dd { margin-bottom: 5px; }
  .controls input { width: 120px; }
  .controls output + label { margin-left: 0; }
}
@media print { .controls { display: none; } body { background: white; } }
)css";

}  // namespace refract
