import { appendFileSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { sha256 } from "@vibeserve/shared";
import { ArtifactStore } from "../../coordinator/src/artifact/artifact-store.ts";
import { ContentCache } from "../../gpu-agent/src/artifact/content-cache.ts";
import { ObjectArtifacts } from "../../gpu-agent/src/artifact/object-artifacts.ts";
import { forge, startBroker, type RealBroker } from "../kit/real-broker.ts";
import { tempDir } from "../kit/temp-dir.ts";

const dir = tempDir("artifact");
let broker: RealBroker;
let artifacts: ObjectArtifacts;
const cacheDir = join(dir.path, "cache");
const bytes = Buffer.from("a candidate's tree");

beforeAll(async () => {
  broker = await startBroker(dir.path);
  const nc = await broker.connectAgent("a1", await broker.enroll("a1"));
  artifacts = new ObjectArtifacts(nc, new ContentCache(cacheDir));
});
afterAll(async () => {
  await broker[Symbol.asyncDispose]();
  dir[Symbol.dispose]();
});

it("an agent with its own credentials puts and gets bytes by their sha256; the local copy is private", async () => {
  const ref = await artifacts.put(bytes);
  expect(ref).toEqual({ digest: sha256(bytes), bytes: bytes.length });
  expect(Buffer.from(await artifacts.get(ref))).toEqual(bytes);
  const path = await artifacts.getFile(ref);
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

it("a local copy that was tampered with is thrown away and fetched again", async () => {
  const ref = await artifacts.put(bytes);
  const path = join(cacheDir, ref.digest);
  appendFileSync(path, "!");
  expect(Buffer.from(await artifacts.get(ref))).toEqual(bytes);
  // Same length, other bytes.
  writeFileSync(path, Buffer.from("a candidate's trEE"));
  expect(Buffer.from(await artifacts.get(ref))).toEqual(bytes);
  expect(readFileSync(path)).toEqual(bytes);
});

it("bytes in the store that do not hash to their name are refused, whoever put them there; so is a wrong size or a missing artifact", async () => {
  const digest = sha256("what was asked for");
  await forge(broker.bus, digest, Buffer.from("what was put there"));
  await expect(artifacts.get({ digest, bytes: 18 })).rejects.toMatchObject({ attribution: "harness", code: "artifact-corrupt" });
  await expect(artifacts.get({ digest, bytes: 17 })).rejects.toMatchObject({ code: "artifact-corrupt" });
  await expect(artifacts.get({ digest: sha256("nothing"), bytes: 1 })).rejects.toMatchObject({ code: "artifact-missing" });
  await expect(artifacts.get({ digest, bytes: 2 ** 40 })).rejects.toMatchObject({ code: "artifact-too-big" });
});

it("putting over a damaged artifact repairs it", async () => {
  const other = Buffer.from("a log of a job");
  await forge(broker.bus, sha256(other), Buffer.from("a l0g of a job"));
  const ref = await artifacts.put(other);
  expect(Buffer.from(await (await ArtifactStore.open(broker.bus.nc)).get(ref.digest))).toEqual(other);
});
