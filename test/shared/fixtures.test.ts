import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Certificate, JobResult, Measurement, type CampaignEvent } from "@vibeserve/shared";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { fold, type Campaign } from "../../coordinator/src/campaign/campaign.machine.ts";
import { signedBy } from "../../coordinator/src/fleet/signature.ts";
import { decodeNext, type Logged } from "../../coordinator/src/log/chain.ts";
import { campaignReport } from "../../coordinator/src/report/report-model.ts";
import { World } from "../campaign/world.ts";
import {
  eventsOf,
  FOLDER,
  freeze,
  frozen,
  messageOf,
  read,
  readable,
  revived,
  write,
  writeUnchecked,
  type Frozen,
} from "../fixtures/frozen.ts";
import { ReportFile } from "../fixtures/report-schema.ts";
import { exported, messages } from "../fixtures/schemas.ts";
import { changedAt, nodesOf, tagOf, unionsIn, type Node } from "../fixtures/walk.ts";
import { tempDir } from "../kit/temp-dir.ts";

const all = frozen();
const nodes = (f: Frozen): Node[] => [...nodesOf(messageOf(f.schema).schema, revived(f.value))];

describe("every frozen message", () => {
  test.for(all.map((f): [string, Frozen] => [f.file, f]))(
    "%s decodes to what it said, and is written and read again as the same",
    ([, f]) => {
      const message = messageOf(f.schema);
      const value = read(message, f.bytes);
      expect(readable(value)).toEqual(f.value);
      expect(readable(read(message, write(message, value)))).toEqual(f.value);
    },
  );

  test.for(all.map((f): [string, Frozen] => [f.file, f]))(
    "%s is refused with one unknown key anywhere, or of another version, and told where",
    ([, f]) => {
      const message = messageOf(f.schema);
      const refusal = (place: Node, more: Record<string, unknown>): string => {
        try {
          read(
            message,
            writeUnchecked(
              message.form,
              changedAt(revived(f.value), place.path, (object) => ({ ...object, ...more })),
            ),
          );
        } catch (error) {
          return error instanceof Error ? error.message : String(error);
        }
        throw new Error(`${JSON.stringify(more)} at ${place.path.join(".") || "the root"} was accepted`);
      };
      for (const place of nodes(f)) {
        if (!(place.schema instanceof z.ZodObject) || open(place.schema)) continue;
        const where = place.path.join(".");
        const unknown = refusal(place, { surprise: 1 });
        expect(unknown).toContain(where);
        expect(unknown).toContain("surprise");
        if (place.schema.shape["v"] === undefined) continue;
        expect(refusal(place, { v: 2 })).toContain([...place.path, "v"].join("."));
      }
    },
  );

  test("a certificate alone may hold more than is known: later versions add to it", () => {
    const objects = all.flatMap(nodes).flatMap(({ schema }) => (schema instanceof z.ZodObject ? [schema] : []));
    expect(new Set(objects.filter(open))).toEqual(new Set([Certificate]));
  });
});

const open = (schema: z.ZodObject): boolean => !(schema.def.catchall instanceof z.ZodNever);

test("every message, and every variant of every union in one, is frozen", () => {
  const names = new Map(exported.flatMap(([name, schema]) => (schema instanceof z.ZodDiscriminatedUnion ? [[schema, name] as const] : [])));
  const holders = new Map<z.ZodDiscriminatedUnion, string>();
  for (const [name, { schema }] of Object.entries(messages))
    for (const [union, path] of unionsIn(schema, name)) {
      if (!names.has(union)) names.set(union, path);
      if (!holders.has(union)) holders.set(union, name);
    }
  const taken = new Set(all.flatMap(nodes).map((n) => `${names.get(n.schema as z.ZodDiscriminatedUnion) ?? ""} ${tag(n)}`));
  const missing = [
    ...Object.keys(messages).flatMap((name) => (all.some((f) => f.schema === name) ? [] : [`${name}: ${advice(name)}`])),
    ...[...names].flatMap(([union, name]) =>
      union.options
        .map((option) => tagOf(union, option))
        .filter((kind) => !taken.has(`${name} ${kind}`))
        .map((kind) => `${name} with ${union.def.discriminator} "${kind}": ${advice(holders.get(union) ?? "<message>")}`),
    ),
  ];
  expect(missing).toEqual([]);
});

const advice = (schema: string): string =>
  `is not frozen; write its value to a file and run: node test/fixtures/add.ts ${schema} <name> <file>`;

function tag({ schema, value }: Node): string {
  return schema instanceof z.ZodDiscriminatedUnion ? String((value as Record<string, unknown>)[schema.def.discriminator]) : "";
}

test("the frozen events are one log: each holds the hash of the one before it, and today's reducer reads a proven campaign from it", () => {
  let last: Logged | null = null;
  let campaign: Campaign | null = null;
  for (const { bytes: written, value } of eventsOf()) {
    const bytes = Buffer.from(written, "base64");
    const event: CampaignEvent = decodeNext((value as CampaignEvent).campaign, bytes, last);
    last = { event, bytes, streamSeq: 0 };
    campaign = fold(campaign, event);
  }
  expect(campaign?.ended?.outcome).toBe("proven");
  expect(campaign?.champions.map((c) => c.experimentId)).toEqual(campaign?.leaders.slice(1));
});

test("frozen results and measurements still carry their agent's signature, and lose it with any change", () => {
  const agent = all.find((f) => f.schema === "AgentInfo")?.value as { publicKey: string };
  const signed = all.flatMap(nodes).filter(({ schema }) => schema === JobResult || schema === Measurement);
  expect(signed.length).toBeGreaterThan(3);
  for (const { value } of signed) {
    const whole = value as { sig: string };
    expect(signedBy(agent.publicKey, whole)).toBe(true);
    expect(signedBy(agent.publicKey, { ...whole, more: 1 } as { sig: string })).toBe(false);
  }
});

test("today's report is one of the frozen kind", () => {
  const state = new World([{ id: "q4", seam: "linear", stated: 9, truth: 30 }], { baselines: ["openvino-genai"] }).run();
  const report: unknown = JSON.parse(JSON.stringify({ v: 1, kind: "report", campaigns: [campaignReport(state)] }));
  expect(ReportFile.parse(report)).toEqual(report);
});

test("a message is frozen once: what is there is never written over, and what is no message is not frozen", () => {
  using dir = tempDir("frozen");
  const source = JSON.stringify({ v: 1, kind: "watch", campaign: null, after: 0 });
  const path = freeze("WatchRequest", "newest", source, dir.path);
  expect(frozen(dir.path)).toMatchObject([{ schema: "WatchRequest", value: JSON.parse(source) as object }]);
  writeFileSync(path, "frozen before");
  expect(() => freeze("WatchRequest", "newest", source, dir.path)).toThrow("newest.json exists and is frozen");
  expect(readFileSync(path, "utf8")).toBe("frozen before");
  expect(() => freeze("WatchRequest", "other", JSON.stringify({ v: 1, kind: "watch" }), dir.path)).toThrow(/campaign: .*; after: /);
  expect(() => freeze("Watch", "other", source, dir.path)).toThrow(/there is no message "Watch"; there are: .*WatchRequest/);
});

test("the script that adds one says what is wrong, and ends with 2", () => {
  const add = (...args: string[]): { status: number | null; stderr: string } =>
    spawnSync(process.execPath, [join(FOLDER, "../add.ts"), ...args], { encoding: "utf8" });
  expect(add("Job")).toMatchObject({ status: 2, stderr: "add: usage: node test/fixtures/add.ts <schema> <name> <file>\n" });
  expect(add("Job", "build", join(FOLDER, "Job/build.json"))).toMatchObject({
    status: 2,
    stderr: expect.stringContaining("exists and is frozen") as string,
  });
});
