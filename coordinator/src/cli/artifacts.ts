import { PruneReport, PruneRequest } from "@vibeserve/shared";
import { connectClient } from "./context.ts";
import { durationOf } from "./duration.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

/** `artifacts prune`: what no campaign that is not over refers to, and that is older, leaves the object store. */
export async function artifacts(
  { settings, context, output }: Invocation,
  action: string,
  options: { olderThan: string; dryRun?: boolean },
): Promise<void> {
  if (action !== "prune") throw new CliError(EXIT.badInput, `no action "${action}"; there is: prune`);
  const olderThanS = options.olderThan === "0" ? 0 : durationOf("--older-than", options.olderThan);
  await using client = await connectClient(settings, context);
  const request = { v: 1, kind: "prune", olderThanS, dryRun: options.dryRun === true } as const;
  let report = await client.ask("prune", PruneRequest, request, PruneReport);
  while (report.more) {
    const { removed, bytes, unfinished } = report;
    const next = await client.ask("prune", PruneRequest, request, PruneReport);
    report = { ...next, removed: removed + next.removed, bytes: bytes + next.bytes, unfinished: unfinished + next.unfinished };
  }
  const verb = report.dryRun ? "would go" : "removed";
  output.answer(
    report,
    `${report.removed} artifacts ${verb} (${(report.bytes / 1e6).toFixed(1)} MB), ${report.unfinished} unfinished transfers; ${report.kept} stay`,
  );
}
