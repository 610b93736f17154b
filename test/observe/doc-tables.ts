import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { CATALOG } from "../../coordinator/src/observe/catalog.ts";

interface Rules {
  groups: { rules: { alert: string; for?: string; labels: { severity: string }; annotations: { summary: string } }[] }[];
}

/** The page with its two tables made anew, between the comments that name them. */
export function replaceTables(page: string, rulesFile: string): string {
  const metrics = Object.entries(CATALOG).map(([name, m]) => [`\`${name}\``, m.kind, "labels" in m ? m.labels.join(", ") : "", m.help]);
  const { groups } = parse(readFileSync(rulesFile, "utf8")) as Rules;
  const alerts = groups
    .flatMap((group) => group.rules)
    .map((r) => [r.alert, r.labels.severity, r.for ?? "at once", r.annotations.summary.replace(/\{\{.*?\}\}/g, "…")]);
  const tables = {
    metrics: table(["metric", "kind", "labels", "what"], metrics),
    alerts: table(["alert", "severity", "after", "what"], alerts),
  };
  return Object.entries(tables).reduce(
    (text, [name, made]) =>
      text.replace(new RegExp(`(<!-- ${name} -->\n)[^]*?(<!-- end -->)`), (_, begin: string, end: string) => `${begin}${made}${end}`),
    page,
  );
}

const table = (head: string[], rows: string[][]): string =>
  [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |\n`).join("");
