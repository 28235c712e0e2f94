"""The style sheet of the report: narrow and wide screens, light and dark, and paper."""

CSS = """
:root { --paper: #ffffff; --ink: #1d1d20; --muted: #6b6b73; --grid: #dedee3; --panel: #f6f6f8;
  --line-0: #2563b8; --line-1: #c2571a; --line-2: #2f8554; }
@media (prefers-color-scheme: dark) { :root { --paper: #17181b; --ink: #e8e8ea; --muted: #9b9ba4;
  --grid: #3a3b41; --panel: #212226; --line-0: #7db1f0; --line-1: #f0a06a; --line-2: #7fcf9f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 .5rem; }
section { margin-top: 2.5rem; }
p { margin: 0; }
.note { color: var(--muted); font-size: .9rem; }
.about { margin: 1rem 0 0; }
.about div { display: grid; grid-template-columns: 6rem 1fr; gap: .75rem; padding: .2rem 0; }
.about dt, .about dd { font-size: .95rem; font-weight: 400; overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0 .5rem; }
.facts div { background: var(--panel); border-radius: .5rem; padding: .6rem .8rem;
  white-space: nowrap; }
dt { color: var(--muted); font-size: .8rem; }
dd { margin: 0; font-size: 1.05rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin-top: .75rem; }
table { border-collapse: collapse; font-size: .95rem; }
th, td { padding: .4rem 1.25rem .4rem 0; text-align: left; vertical-align: top; }
thead th { color: var(--muted); font-size: .85rem; font-weight: 500; white-space: nowrap; }
tbody th { font-weight: 400; }
tr { border-bottom: 1px solid var(--grid); }
.numeric td, .numeric th + th { text-align: right; padding: .4rem 0 .4rem 2rem;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.emphasis th, .emphasis td { font-weight: 650; }
.code { width: 100%; }
.code td, .code tbody th, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  font-size: .8rem; overflow-wrap: anywhere; }
.code td { min-width: 7rem; }
.code td:last-child { color: var(--muted); }
pre { background: var(--panel); border-radius: .5rem; padding: 1rem; overflow-x: auto; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
  gap: 1.25rem; margin-top: .75rem; }
.over { display: flex; flex-wrap: wrap; gap: 1.25rem; align-items: flex-start; }
.thumbnails { flex: 1 1 16rem; min-width: 0; margin-top: .75rem; display: grid; gap: 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
figure { margin: 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; }
img { display: block; max-width: 100%; height: auto; border-radius: .25rem; }
.sheet { width: fit-content; max-width: 100%; margin-top: .75rem; }
figcaption { color: var(--muted); font-size: .8rem; margin-top: .3rem; overflow-wrap: anywhere; }
details { margin-top: 1rem; }
summary { cursor: pointer; color: var(--muted); font-size: .9rem; }
@media (max-width: 36rem) { main { padding: 1.25rem 1rem 3rem; }
  .about div { grid-template-columns: 1fr; gap: 0; padding: .3rem 0; }
  .code thead { display: none; }
  .code tr, .code th, .code td { display: block; padding: 0; }
  .code tr { padding: .4rem 0; }
  .code td:nth-of-type(1) { font-weight: 600; }
  .code td:last-child::before { content: "default "; font-family: inherit; } }
@media print { .panels { grid-template-columns: 1fr 1fr; } section { break-inside: avoid; } }
"""
