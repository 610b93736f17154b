import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Id, Instant, message, Release, RESERVED_LABEL, SandboxKind } from "@vibeserve/shared";
import type { z } from "zod";

/** `<git>/<campaign>.champion.json`: what serving a champion needs beside its commit, readable while no coordinator runs. */
export const ChampionFile = message("champion", {
  campaign: Id,
  ...Release.omit({ champion: true, evidence: true }).shape,
  /** Of the agent that proved it. */
  sandbox: SandboxKind,
  crownedAt: Instant,
});
export type ChampionFile = z.infer<typeof ChampionFile>;

const SUFFIX = ".champion.json";
export const championPath = (dir: string, campaign: string): string => join(dir, `${campaign}${SUFFIX}`);

/** The newest crowned champion of a campaign takes the place of the one before it. */
export function writeChampion(dir: string, champion: ChampionFile): void {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const path = championPath(dir, champion.campaign);
  writeFileSync(`${path}.new`, JSON.stringify(champion, null, 2));
  renameSync(`${path}.new`, path);
}

/** The champion of a campaign; null: of the one crowned last, but for those of reserved devices. Null where there is none. */
export function readChampion(dir: string, campaign: string | null): ChampionFile | null {
  if (!existsSync(dir)) return null;
  const found = readdirSync(dir)
    .filter((name) => (campaign === null ? name.endsWith(SUFFIX) : name === `${campaign}${SUFFIX}`))
    .map((name) => ChampionFile.parse(JSON.parse(readFileSync(join(dir, name), "utf8"))))
    .filter(({ device }) => campaign !== null || device[RESERVED_LABEL] === undefined)
    .sort((a, b) => b.crownedAt - a.crownedAt);
  return found[0] ?? null;
}
