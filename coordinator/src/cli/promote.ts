import { nameOf, type Promotion, type Release } from "@vibeserve/shared";
import { championNamed, type Champion } from "../findings/champions.ts";
import { standingOf } from "../findings/standing.ts";
import { LockHeldError } from "../process/lock.ts";
import { changeChannel, readChannel, servedBefore } from "../release/channel.ts";
import { messageOf } from "../process/message-of.ts";
import { championOfName, knownTo, type Known } from "./champions.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

export interface ChannelOptions {
  channel: string;
  reason?: string;
  force?: boolean;
}

/** Makes a champion what a channel serves. Refused where something speaks against it, but for --force, which is written down. */
export async function promote(invocation: Invocation, named: string, options: ChannelOptions & { export?: string }): Promise<void> {
  const known = await knownTo(invocation);
  const champion = championOfName(known, named);
  change(invocation, options, "promote", () => ({
    release: champion.release,
    exportedTo: options.export ?? null,
    reason: options.reason ?? "asked for",
    overridden: objection(known, champion, options.force === true),
  }));
}

/** Takes a channel back to what it served before, or to a champion by name. Never refused, since what is served may be worse; what speaks against it is written down. */
export async function rollback(invocation: Invocation, options: ChannelOptions & { to?: string }): Promise<void> {
  const known = await knownTo(invocation);
  change(invocation, options, "rollback", () => {
    const channel = channelOf(invocation, options.channel);
    if (!channel.current) throw new CliError(EXIT.badInput, `channel ${options.channel} serves nothing`);
    const release = options.to === undefined ? servedBefore(channel) : championOfName(known, options.to).release;
    if (!release)
      throw new CliError(
        EXIT.badInput,
        `channel ${options.channel} served nothing before ${nameOf(channel.current.release.champion)}; name a champion with --to`,
      );
    const champion = championNamed(known.champions, nameOf(release.champion));
    const objected = champion ? objection(known, champion, true) : null;
    // Where a channel was taken back to: its folder, if it was exported then.
    const exportedTo = channel.history.findLast((p) => p.release.treeDigest === release.treeDigest)?.exportedTo ?? null;
    return { release, exportedTo, reason: options.reason ?? "asked for", overridden: objected };
  });
}

/** What speaks against serving it; null: nothing. Throws CliError where something does and nobody insists. */
function objection({ logs, campaigns }: Known, champion: Champion, force: boolean): string | null {
  const { state, reason } = standingOf(champion, campaigns, logs.agents);
  const simulated = champion.release.evidence.simulated ? "it was measured on a simulated device" : null;
  const why = state === "proven" ? simulated : `${champion.name} is ${state}: ${reason}`;
  if (why !== null && !force) throw new CliError(EXIT.negative, `${why}\n  all the same: --force`);
  return why;
}

function change(
  { settings, output }: Invocation,
  { channel: name }: ChannelOptions,
  action: Promotion["action"],
  decide: () => Omit<Promotion, "action" | "at"> & { release: Release },
): void {
  channelOf({ settings }, name);
  try {
    const { path, channel } = changeChannel(settings.data, name, () => ({ action, at: Date.now(), ...decide() }));
    const { current } = channel;
    const over = current?.overridden ? `, although ${current.overridden}` : "";
    output.answer({ ...channel, path }, `channel ${name} serves ${current ? nameOf(current.release.champion) : "nothing"}${over}: ${path}`);
  } catch (error) {
    if (error instanceof LockHeldError) throw new CliError(EXIT.negative, error.message);
    throw error;
  }
}

function channelOf({ settings }: Pick<Invocation, "settings">, name: string): ReturnType<typeof readChannel> {
  try {
    return readChannel(settings.data, name);
  } catch (error) {
    throw new CliError(EXIT.badInput, messageOf(error));
  }
}
