import type { CheckReport } from "@vibeserve/shared";
import type { CurvePoint } from "./curve.ts";
import { showRatio } from "./summary-table.ts";
import type { CampaignReport } from "./report-model.ts";

/** Escapes text for element content and attribute values: reasons may quote a candidate's log, which is untrusted. */
export const escapeHtml = (s: string): string =>
  s.replace(/[&<>"']/g, (ch) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[ch] ?? ch);

const STYLE = `
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%;font-size:.87rem}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d8dee4;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}code,pre{font:13px ui-monospace,monospace;background:#f3f5f7;padding:.1rem .3rem}
pre{padding:.7rem;overflow:auto}.proven{color:#116329}.disproven,.implementation_failed{color:#a40e26}.inconclusive,.blocked{color:#7a5200}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:.8rem;margin:1rem 0}.facts div{border:1px solid #d8dee4;border-radius:6px;padding:.6rem .8rem}
.facts b{display:block;font-size:1.25rem}.sim{background:#fff3c4;padding:.5rem}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th,td,.facts div{border-color:#30363d}code,pre{background:#161b22}.proven{color:#56d364}.disproven,.implementation_failed{color:#ff7b72}.inconclusive,.blocked{color:#e3b341}.sim{background:#4d3800}}`;

/** One self-contained page: no script, no font, no request to anywhere. */
export function reportHtml(r: CampaignReport, points: CurvePoint[]): string {
  const e = escapeHtml;
  const rate = r.champion?.rate;
  const facts: [string, string][] = [
    ["over the seed", r.ratioToSeed ? showRatio(r.ratioToSeed) : "not proven"],
    ...r.baselines.map((b): [string, string] => [
      `over ${b.engine} ${b.version ?? ""}`,
      b.ratio ? showRatio(b.ratio) : `not measured: ${b.missing ?? ""}`,
    ]),
    ["champion's rate", rate ? `${rate.value.toFixed(0)} ${r.metric.unit} (${rate.workload} workload)` : "—"],
    ["device", `${r.device ?? "?"}, ${r.isa ?? "?"}, ${r.cores ?? "?"} cores`],
  ];
  const rows = r.experiments.map(
    (x) =>
      `<tr><td>${e(x.id)}</td><td>${e(x.skills.join(", "))}</td><td>${e(x.parent)}</td><td class="${e(x.outcome)}">${e(x.outcome)}</td><td class="n">${x.expected.toFixed(2)}×</td><td class="n">${x.ratio ? `${x.ratio.point.toFixed(3)}×<br>[${x.ratio.lo.toFixed(3)}, ${x.ratio.hi.toFixed(3)}]` : "—"}</td><td class="n">${x.rate ? `${x.rate.value.toFixed(1)} (${x.rate.workload})` : "—"}</td><td class="n">${x.seconds.toFixed(0)}</td><td>${e(x.reason)}</td></tr>`,
  );
  const sweeps = r.baselines.flatMap((b) =>
    b.sweep.map(
      (s) =>
        `<tr><td>${e(b.engine)} ${e(b.version ?? "")}</td><td>${e(s.setting)}${s.setting === b.setting ? " (strongest)" : ""}</td><td class="n">${s.value.toFixed(1)}</td></tr>`,
    ),
  );
  const bindings = Object.entries(r.champion?.bindings ?? {}).map(
    ([seam, path]) => `<tr><td>${e(seam)}</td><td><code>${e(path)}</code></td></tr>`,
  );
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>VibeServe: ${e(r.target)}</title><style>${STYLE}</style></head><body>
<h1>${e(r.target)}</h1>
<p>${e(r.outcome ?? "running")}: ${e(r.reason ?? r.searchEnded ?? "")}</p>
${r.simulated ? '<p class="sim">Simulated device: no figure here is a measurement of real hardware.</p>' : ""}
${r.unverified ? '<p class="sim">The target was stated as unverified on device before this campaign.</p>' : ""}
${r.sandbox === "none" ? '<p class="sim">No sandbox on this machine: only code that ships with the product was run.</p>' : ""}
<div class="facts">${facts.map(([k, v]) => `<div>${e(k)}<b>${e(v)}</b></div>`).join("")}</div>
<h2>Champion curve</h2>
<p>Estimated gain of the leader over the seed (product of screened ratios; a claim rests on direct pairs only). Filled: crowned on fresh seeds.</p>
${svg(points)}
<h2>Experiments</h2>
<table><tr><th>id</th><th>skill</th><th>parent</th><th>outcome</th><th>expected</th><th>ratio, 90 %</th><th>${e(r.metric.unit)}</th><th>s</th><th>why</th></tr>${rows.join("")}</table>
${r.uncrowned.length ? `<h2>Leaders that were not crowned</h2><ul>${r.uncrowned.map((u) => `<li>${e(u.experimentId)}: ${e(u.reason)}</li>`).join("")}</ul>` : ""}
${sweeps.length ? `<h2>Baselines, settings swept</h2><table><tr><th>engine</th><th>setting</th><th>${e(r.metric.unit)}</th></tr>${sweeps.join("")}</table>` : ""}
<h2>Accuracy</h2>
${gates("champion", r.accuracy.champion)}${gates("seed", r.accuracy.seed)}${r.baselines.map((b) => gates(b.engine, b.accuracy)).join("")}
<h2>What the champion binds</h2>
<table>${bindings.join("")}</table>
<h2>Certificate of the claim against the seed</h2>
<pre>${e(JSON.stringify(r.certificate, null, 1))}</pre>
${clockError(r.certificate)}
<h2>Repeat it</h2>
<pre>${e(r.repeat)}</pre>
<p>Seed ${e(r.commits.seed ?? "—")}, champion ${e(r.commits.champion ?? "—")}, workload ${e(r.workloadDigest)}.</p>
<table><tr><th>tool</th><th>version</th><th>sha256</th></tr>${r.toolVersions.map((t) => `<tr><td>${e(t.name)}</td><td>${e(t.version)}</td><td><code>${e((t.digest ?? "—").slice(0, 16))}</code></td></tr>`).join("")}</table>
</body></html>
`;
}

/** Beside figures that may stand above their limits. */
function clockError(certificate: CampaignReport["certificate"]): string {
  const points = certificate?.resolutionPct;
  return points === undefined
    ? ""
    : `<p>Its clocks tick: CPU time that was stolen or foreign is known within ±${points.toFixed(2)} percentage points, and a run counts where it may have been within the limit.</p>`;
}

function gates(who: string, c: CheckReport | null): string {
  if (!c) return "";
  const rows = c.gates.map(
    (g) =>
      `<tr><td>${escapeHtml(g.name)}</td><td class="n">${Number(g.value.toPrecision(4))} ${escapeHtml(g.unit)}</td><td>${escapeHtml(g.limit)}</td><td>${g.ok ? "passed" : "FAILED"}</td></tr>`,
  );
  return `<h3>${escapeHtml(who)}: ${c.level}, ${c.positions} hidden positions, ${c.servedTokens} served tokens judged</h3><table><tr><th>gate</th><th>value</th><th>limit</th><th></th></tr>${rows.join("")}</table>`;
}

/** Step curve on a logarithmic axis: gains multiply. */
function svg(points: CurvePoint[]): string {
  const [w, h, left, bottom, top] = [860, 260, 56, 30, 14];
  const maxT = Math.max(1, ...points.map((p) => p.atS));
  const decades = Math.max(1, Math.ceil(Math.log10(Math.max(...points.map((p) => p.estimate), 1.01))));
  const x = (t: number): number => left + (t / maxT) * (w - left - 20);
  const y = (v: number): number => h - bottom - (Math.log10(Math.max(v, 0.1)) / decades) * (h - bottom - top);
  const path = points
    .map((p, i) =>
      i === 0 ? `M${x(p.atS).toFixed(1)} ${y(p.estimate).toFixed(1)}` : `H${x(p.atS).toFixed(1)}V${y(p.estimate).toFixed(1)}`,
    )
    .join("");
  const grid = Array.from(
    { length: decades + 1 },
    (_, d) =>
      `<line x1="${left}" x2="${w - 20}" y1="${y(10 ** d)}" y2="${y(10 ** d)}" stroke="currentColor" opacity=".15"/><text x="${left - 8}" y="${y(10 ** d) + 4}" text-anchor="end">${10 ** d}×</text>`,
  );
  const dots = points.map(
    (p) =>
      `<circle cx="${x(p.atS).toFixed(1)}" cy="${y(p.estimate).toFixed(1)}" r="${p.crowned ? 6 : 4}" fill="${p.crowned ? "#2da44e" : "none"}" stroke="#2da44e" stroke-width="2"><title>${escapeHtml(p.experimentId)}: ${p.estimate.toFixed(2)}× at ${p.atS.toFixed(0)} s</title></circle>`,
  );
  return `<svg viewBox="0 0 ${w} ${h}" width="100%" role="img" aria-label="Champion curve" font-size="12" fill="currentColor">${grid.join("")}<path d="${path}" fill="none" stroke="#2da44e" stroke-width="2"/>${dots.join("")}<text x="${w - 20}" y="${h - 8}" text-anchor="end">${maxT.toFixed(0)} s</text></svg>`;
}
