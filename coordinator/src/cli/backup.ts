import { statSync } from "node:fs";
import { join, resolve } from "node:path";
import { commandLine } from "../command-line.ts";
import { ArchiveDamagedError } from "../operate/archive-file.ts";
import { backup, whyNotTo } from "../operate/backup.ts";
import { requireData } from "../operate/data-bus.ts";
import { restore, RestoreRefusedError } from "../operate/restore.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

/** Throws CliError: 2 where there is nothing to back up or the file exists already, 1 where a part of it could not be read: the backup holds the rest. */
export async function backupData(
  { settings, output, version }: Invocation,
  { to: place, withKeys }: { to: string; withKeys?: boolean },
): Promise<void> {
  requireData(settings.data);
  // In a folder it is named by its moment: whoever is run by a machine has no name that is new each time.
  const to = place.endsWith("/") ? join(place, `${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}Z.tar`) : place;
  const why = whyNotTo(to);
  if (why !== null) throw new CliError(EXIT.badInput, why);
  const manifest = await backup({ settings, to, withKeys: withKeys === true, version });
  const { campaigns, unreadable, results, artifacts, members, keys } = manifest;
  const bytes = statSync(to).size;
  const lines = [
    `${to}: ${(bytes / 1e6).toFixed(1)} MB, ${campaigns.length} campaigns with ${campaigns.reduce((sum, c) => sum + c.events, 0)} events, ${results} results under way, ${artifacts.count} artifacts`,
    `taken ${manifest.running ? "while the coordinator was at work" : "while no coordinator ran"}; leases are not carried over: a restore makes those of then void`,
    keys
      ? "it holds the coordinator's keys: who can read it is the coordinator"
      : "it holds no keys: after a restore agents join again (--with-keys changes that)",
  ];
  const { members: _members, ...told } = manifest;
  output.answer({ ...told, file: resolve(to), bytes, members: members.length }, lines.join("\n"));
  const lost = [
    ...unreadable.map((u) => `campaign ${u.id}: ${u.why}`),
    ...artifacts.corrupt.map((digest) => `artifact ${digest} is corrupt`),
  ];
  if (lost.length > 0) throw new CliError(EXIT.negative, `not in it, since it can't be read here either: ${lost.join("; ")}`);
}

/** Throws CliError 2 where it is refused, and nothing was changed then; 1 for a damaged archive. */
export async function restoreData({ settings, output, version }: Invocation, file: string): Promise<void> {
  if (!statSync(file, { throwIfNoEntry: false })?.isFile()) throw new CliError(EXIT.badInput, `there is no file ${file}`);
  try {
    const { manifest, floor } = await restore({ settings, file: resolve(file), version });
    const { campaigns, results, leases, keys, at } = manifest;
    const lines = [
      `${settings.data}: ${campaigns.length} campaigns (${campaigns.filter((c) => !c.ended).length} not over), ${results} results under way, as of ${new Date(at).toISOString()}`,
      `fencing tokens go on above ${floor}: every lease of before is void, and what agents still send under one is kept as evidence`,
      keys
        ? "agents come back by themselves where the coordinator listens on the same address; one that was revoked after the backup is in again: revoke it again"
        : `the keys are new: every agent joins again with a new line (${commandLine("agents", ["token"])})`,
      `start it with: ${commandLine("up", ["--data", settings.data])}`,
    ];
    output.answer(
      { v: 1, kind: "restored", data: settings.data, at, floor, keys, campaigns, results, leasesVoid: leases.stood },
      lines.join("\n"),
    );
  } catch (error) {
    if (error instanceof ArchiveDamagedError) throw new CliError(EXIT.negative, error.message);
    if (error instanceof RestoreRefusedError) throw new CliError(EXIT.badInput, error.message);
    throw error;
  }
}
