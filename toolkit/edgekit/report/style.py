"""The style sheet of every report: calm, one accent, light and dark, printable.

Colours carry meaning only beside words or position. The five series colours are told apart with any of the common colour deficiencies and keep
3:1 against the surface in both modes.
"""

from __future__ import annotations

STYLE = """
:root {
  --surface: #fcfcfb; --raised: #ffffff; --ink: #1b1b19; --ink-2: #55544f; --ink-3: #807e76; --line: #e4e3de; --grid: #ecebe6;
  --series-1: #2a78d6; --series-2: #1a9c70; --series-3: #b97a00; --series-4: #6a5acd; --series-5: #c0497c;
  --shade: #f0efea; --good: #1a7f5a; --warning: #9a6400; --bad: #b3261e; --tint: 16%; --on: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --surface: #191918; --raised: #21211f; --ink: #f2f1ec; --ink-2: #bdbbb3; --ink-3: #918f87; --line: #383733; --grid: #2c2b28;
    --series-1: #5598e7; --series-2: #2fae83; --series-3: #d39a2c; --series-4: #9a8fee; --series-5: #dd7aa4;
    --shade: #282825; --good: #4cc394; --warning: #dca53f; --bad: #f0857d; --tint: 24%; --on: #10100f;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--surface); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.5rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; font-weight: 650; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 0.25rem; font-weight: 650; }
h3 { font-size: 0.95rem; margin: 1.25rem 0 0.25rem; font-weight: 600; }
.subtitle { margin: 0.3rem 0 0; color: var(--ink-2); overflow-wrap: anywhere; }
section { margin-top: 2.75rem; }
.note { margin: 0 0 0.9rem; color: var(--ink-2); max-width: 46rem; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--ink-3); font-size: 0.85rem; }
.callout { margin: 1rem 0 0; padding: 0.6rem 0.9rem; border-left: 3px solid; border-radius: 3px; background: var(--shade); }
.callout.good { border-color: var(--good); } .callout.good strong { color: var(--good); }
.callout.warning { border-color: var(--warning); } .callout.warning strong { color: var(--warning); }
.callout.bad { border-color: var(--bad); } .callout.bad strong { color: var(--bad); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 0.75rem; margin: 1.5rem 0 0; }
.figures > div { background: var(--raised); border: 1px solid var(--line); border-radius: 8px; padding: 0.75rem 0.9rem; }
.figures dt { color: var(--ink-2); font-size: 0.85rem; }
.figures dd { margin: 0; }
.figures .value { font-size: 1.55rem; font-weight: 600; line-height: 1.3; letter-spacing: -0.01em; }
.figures .unit { font-size: 0.9rem; font-weight: 400; color: var(--ink-2); }
.figures .detail { font-size: 0.8rem; color: var(--ink-3); line-height: 1.35; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.5rem 2rem; align-items: start; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; min-width: min(100%, 34rem); font-size: 0.9rem; }
caption { text-align: left; color: var(--ink-2); padding-bottom: 0.35rem; }
th, td { padding: 0.35rem 0.75rem 0.35rem 0; text-align: left; border-bottom: 1px solid var(--line); font-weight: 400; white-space: nowrap; }
thead th { color: var(--ink-2); font-size: 0.82rem; }
th.number, td.number { text-align: right; padding: 0.35rem 0 0.35rem 0.75rem; font-variant-numeric: tabular-nums; }
td.text { white-space: normal; }
.facts { display: grid; grid-template-columns: minmax(9rem, max-content) 1fr; gap: 0.25rem 1.25rem; margin: 0; font-size: 0.9rem; }
.facts dt { color: var(--ink-2); } .facts dd { margin: 0; overflow-wrap: anywhere; }
.unknown { color: var(--ink-3); }
code { font: 0.85em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.confusion th, .confusion td { padding: 0.5rem 0.75rem; }
.confusion td { text-align: right; font-variant-numeric: tabular-nums; }
.confusion td.right { background: color-mix(in srgb, var(--series-1) calc(var(--share) * 0.45), transparent); }
.confusion td.wrong { background: color-mix(in srgb, var(--series-3) calc(var(--share) * 0.9), transparent); }
.confusion .share { display: block; font-size: 0.78rem; color: var(--ink-2); }
details { margin-top: 1rem; font-size: 0.9rem; } summary { color: var(--ink-2); cursor: pointer; }
details > * + * { margin-top: 0.5rem; }
.gallery { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; } .thumbnail { max-width: 15rem; }
.thumbnail img { display: block; max-width: 100%; border-radius: 4px; background: #000; }
figcaption { font-size: 0.82rem; color: var(--ink-2); margin-top: 0.35rem; overflow-wrap: anywhere; }
.maps { display: grid; grid-template-columns: repeat(3, 1fr); gap: 0.35rem; }
.maps span { display: block; font-size: 0.75rem; color: var(--ink-2); }
.chart { margin-top: 0.5rem; overflow-x: auto; }
.chart svg { display: block; width: 100%; min-width: 34rem; height: auto; }
.chart text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--ink-2); }
.chart.narrow { overflow-x: visible; } .chart.narrow svg { min-width: 0; max-width: 30rem; }
.chart .axis { stroke: var(--ink-3); stroke-width: 1; } .chart .grid { stroke: var(--grid); stroke-width: 1; }
.chart .strong { fill: var(--ink); font-weight: 600; } .chart .faint { fill: var(--ink-3); }
.chart .s1 { --c: var(--series-1); } .chart .s2 { --c: var(--series-2); } .chart .s3 { --c: var(--series-3); }
.chart .s4 { --c: var(--series-4); } .chart .s5 { --c: var(--series-5); }
.chart .fill { fill: var(--c); } .chart .stroke { stroke: var(--c); fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.chart .band { fill: color-mix(in srgb, var(--c) var(--tint), transparent); }
.chart .under { stroke: var(--c); stroke-opacity: 0.4; fill: none; stroke-width: 6; stroke-linejoin: round; stroke-linecap: round; }
.chart .hollow { fill: var(--surface); stroke: var(--ink-3); stroke-width: 1.5; } .chart .track { fill: var(--grid); }
.chart .shade { fill: var(--shade); } .chart .held { fill: color-mix(in srgb, var(--warning) var(--tint), transparent); } .chart .guide { stroke: var(--ink-3); stroke-width: 1; stroke-dasharray: 3 3; }
.chart .bound { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 4 3; }
.chart .dot { fill: var(--c); stroke: var(--surface); stroke-width: 2; } .chart .inside { fill: var(--on); font-weight: 600; }
.legend { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; margin: 0.25rem 0 1rem; padding: 0; list-style: none; font-size: 0.85rem; color: var(--ink-2); }
.legend i { display: inline-block; width: 0.7rem; height: 0.7rem; border-radius: 2px; margin-right: 0.4rem; background: var(--c); }
.legend i.other { background: transparent; border: 1.5px solid var(--ink-3); border-radius: 50%; }
.legend i.held { background: color-mix(in srgb, var(--warning) var(--tint), transparent); }
.legend i.before { background: color-mix(in srgb, var(--series-1) var(--tint), transparent); }
.legend .s1 { --c: var(--series-1); } .legend .s2 { --c: var(--series-2); } .legend .s3 { --c: var(--series-3); }
.legend .s4 { --c: var(--series-4); } .legend .s5 { --c: var(--series-5); }
@media (max-width: 32rem) {
  .facts { grid-template-columns: 1fr; gap: 0; } .facts dd { margin-bottom: 0.5rem; } figcaption .facts dd { margin: 0; }
}
@media print {
  :root { --surface: #ffffff; --raised: #ffffff; --ink: #000000; --ink-2: #333333; --ink-3: #555555; --line: #cccccc; --grid: #e6e6e6;
    --series-1: #2a78d6; --series-2: #1a9c70; --series-3: #b97a00; --series-4: #6a5acd; --series-5: #c0497c; --shade: #f2f2f2;
    --good: #1a7f5a; --warning: #9a6400; --bad: #b3261e; --tint: 16%; --on: #ffffff; }
  body { font-size: 10.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  .chart, .scroll { overflow: visible; } .chart svg { min-width: 0; }
  section, .figures, .chart, table { break-inside: avoid; }
}
"""
