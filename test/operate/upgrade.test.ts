import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { jetstream } from "@nats-io/jetstream";
import { PROTOCOL, subjects } from "@vibeserve/shared";
import { Packr } from "msgpackr";
import { describe, expect, test, vi } from "vitest";
import { connectBus } from "../../coordinator/src/bus/connect.ts";
import { LOG, whyNot } from "../../coordinator/src/operate/release-file.ts";
import { checkUpgrade, type Installed } from "../../coordinator/src/operate/upgrade.ts";
import { older } from "../../coordinator/src/version.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { Site } from "../kit/vibeserve-process.ts";

vi.setConfig({ testTimeout: 120_000 });

const release = (version: string, protocol = 1, log = 1) => ({ version, protocol, log });
const installed = (of: Partial<Installed>): Installed => ({ data: null, coordinator: null, agents: [], unreadable: [], ...of });
const agent = (agentId: string, version: string | null, protocol?: number) => ({
  agentId,
  state: version === null ? "away" : "ready",
  version,
  protocol,
});

describe("whether a release may take over", () => {
  test.each([
    ["a later one of the same protocol", release("0.1.0"), release("0.2.0"), null],
    ["an earlier one of the same protocol", release("0.2.0"), release("0.1.0"), null],
    ["one across a protocol, upwards", release("0.1.0"), release("1.0.0", 2), null],
    ["one across a protocol, downwards", release("1.0.0", 2), release("0.1.0"), /wrote protocol 2, release 0\.1\.0 knows protocol 1/],
    ["one that can't read the log", release("1.0.0", 1, 2), release("0.1.0"), /wrote log 2, release 0\.1\.0 knows log 1/],
  ])("%s", (_what, from, to, why) => {
    const checked = checkUpgrade(installed({ data: from }), to);
    expect(checked.ok).toBe(why === null);
    if (why === null) expect(whyNot(from, to)).toBeNull();
    else expect(checked.refused[0]).toMatch(why);
  });

  test("what a coordinator wrote after the folder's last word counts too", () => {
    expect(checkUpgrade(installed({ data: release("0.1.0"), coordinator: release("1.0.0", 2) }), release("0.1.0")).ok).toBe(false);
  });

  test("agents that would be too old are named, those that were put out are not", () => {
    const agents = [agent("a", "0.1.0"), agent("b", "1.0.0", 2), agent("c", null), { ...agent("d", "0.1.0"), state: "revoked" }];
    const checked = checkUpgrade(installed({ coordinator: release("0.1.0"), agents }), release("1.0.0", 2));
    expect(checked).toMatchObject({ ok: true, tooOld: ["a (0.1.0)"], tooNew: [], unknown: ["c"] });
    expect(checkUpgrade(installed({ coordinator: release("0.1.0"), agents }), release("0.2.0"))).toMatchObject({
      tooOld: [],
      tooNew: ["b (1.0.0)"],
    });
  });

  test("versions are compared by number", () => {
    expect([older("0.9.0", "0.10.0"), older("1.0.0", "0.10.0"), older("1.2.0", "1.2.0")]).toEqual([true, false, false]);
  });
});

test("upgrade --check says what is installed, refuses a downgrade across a protocol, and so does up; a log that can't be read refuses too", async () => {
  using dir = tempDir("upgrade");
  const site = new Site(dir.path);
  const run = async (...args: string[]) => {
    const command = site.run(...args);
    return { code: await command.ended, out: command.out(), err: command.err() };
  };
  try {
    expect(await run("upgrade", "--check")).toMatchObject({ code: 3 });
    expect(await run("upgrade")).toMatchObject({ code: 2 });
    const up = site.run("up");
    await up.printed(/coordinator ready/);
    const { servers, seed } = JSON.parse(readFileSync(join(site.data, "client.json"), "utf8")) as { servers: string[]; seed: string };
    expect(seed).toMatch(/^SU/);
    const coordinator = readFileSync(join(site.data, "nats/keys/coordinator.nk"), "utf8").trim();
    const nc = await connectBus({ servers, seed: coordinator, principal: "coordinator" });
    expect(JSON.parse((await run("upgrade", "--check", "--json")).out)).toMatchObject({
      ...{ v: 1, kind: "upgrade", ok: true, tooOld: [], refused: [] },
      to: { protocol: PROTOCOL, log: LOG },
    });
    // A later release wrote what this one does not know.
    await jetstream(nc).publish(subjects.event("later"), new Packr({ useRecords: false }).pack({ v: 9 }));
    await nc.close();
    // Killed outright it leaves its context; what it wrote is looked at all the same.
    up.child.kill("SIGKILL");
    await up.ended;
    const refused = await run("upgrade", "--check");
    expect(refused).toMatchObject({ code: 1, err: expect.stringMatching(/campaign later can't be read/) as string });
    const file = join(site.data, "release.json");
    const stamp = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
    expect(stamp).toMatchObject({ v: 1, kind: "release", protocol: PROTOCOL, log: LOG });
    writeFileSync(file, JSON.stringify({ ...stamp, version: "9.0.0", protocol: PROTOCOL + 1, and: "more" }));
    expect(await run("upgrade", "--check")).toMatchObject({ code: 1, err: expect.stringMatching(/wrote protocol 2/) as string });
    expect(await run("up")).toMatchObject({ code: 2, err: expect.stringMatching(/install 9\.0\.0 or later/) as string });
  } finally {
    await site.stop();
    site.cleanUp();
  }
});
