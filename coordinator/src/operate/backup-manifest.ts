import { Digest, Id, Instant } from "@vibeserve/shared";
import { z } from "zod";
import { ReleaseFile } from "./release-file.ts";

/**
 * `manifest.json`, the last member of a backup: what is in it. Every other member is in `members`, and every one of those is there.
 *   events/<campaign>.jsonl   {"data": base64} a line: the campaign's events, byte for byte, oldest first
 *   results.jsonl             {"subject", "data"}: results that no log had yet
 *   kv/<bucket>.jsonl         {"key", "revision", "data"}: who was registered, and which leases stood (these are void after a restore)
 *   git/<campaign>.bundle     what `git clone` reads
 *   artifacts/<sha256>        what events or results refer to
 *   files/<path>              of the data folder; keys/<path>: its keys, where they were asked for
 */
export const BackupManifest = z.strictObject({
  v: z.literal(1),
  kind: z.literal("backup"),
  at: Instant,
  /** Which release wrote it. */
  release: ReleaseFile.pick({ version: true, protocol: true, log: true }),
  natsServer: z.string(),
  /** A coordinator was at work meanwhile. */
  running: z.boolean(),
  keys: z.boolean(),
  /** head: sha256 of the last event, which covers all before it. */
  campaigns: z.array(z.strictObject({ id: Id, events: z.int().min(1), head: Digest, ended: z.boolean() })),
  /** Campaigns whose log could not be read: they are not in it. */
  unreadable: z.array(z.strictObject({ id: z.string(), why: z.string() })),
  results: z.int().min(0),
  /** last: the highest fencing token that had been given out. */
  leases: z.strictObject({ stood: z.int().min(0), last: z.int().min(0) }),
  /** corrupt: their bytes do not hash to their name; not in it. */
  artifacts: z.strictObject({ count: z.int().min(0), bytes: z.int().min(0), corrupt: z.array(Digest) }),
  members: z.array(z.strictObject({ path: z.string(), bytes: z.int().min(0), sha256: Digest })),
});
export type BackupManifest = z.infer<typeof BackupManifest>;

export const MANIFEST = "manifest.json";

/** Of the data folder, beside git, events and keys: what a person or the coordinator wrote there that nothing else can make again. */
export const FILES = [
  "config.yaml",
  "prices.yaml",
  "agents.yaml",
  "release.json",
  "health.json",
  "holds.json",
  "report.json",
  "report.html",
  "nats/keys/agents.json",
  "nats/keys/enrolment.json",
];
export const FOLDERS = ["channels", "transcripts"];
/** Who holds these is the coordinator. */
export const KEY_FILES = ["system", "coordinator", "client", "joiner"]
  .map((role) => `nats/keys/${role}.nk`)
  .concat("nats/tls/authority.pem", "nats/tls/server.pem");
