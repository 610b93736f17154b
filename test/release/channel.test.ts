import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ChannelFile, type Promotion, type Release } from "@vibeserve/shared";
import { describe, expect, it } from "vitest";
import { acquireLock, LockHeldError } from "../../coordinator/src/process/lock.ts";
import { changeChannel, channels, channelsFolder, readChannel, servedBefore } from "../../coordinator/src/release/channel.ts";
import { tempDir } from "../kit/temp-dir.ts";

const ratio = { point: 2, lo: 1.9, hi: 2.1, pairs: 4 };
const release = (name: string): Release => ({
  champion: { campaign: name, experimentId: "e1" },
  target: "t",
  model: { name: "m", file: "m.gguf", sha256: "a".repeat(64) },
  device: {},
  commit: "c".repeat(40),
  treeDigest: Buffer.from(name).toString("hex").padEnd(40, "0"),
  branch: `champion/${name}`,
  provenance: "shipped",
  evidence: { ratio, repeat: ratio, jobs: [], simulated: false },
});
const event = (name: string, action: Promotion["action"] = "promote"): Promotion => ({
  ...{ action, release: release(name), exportedTo: null, at: 1_000, reason: "r", overridden: null },
});

describe("a channel's file", () => {
  it("is empty before the first promotion, and then always a whole file that says what is served and what was", () => {
    using dir = tempDir("channel");
    expect(readChannel(dir.path, "stable")).toEqual({ v: 1, kind: "channel", name: "stable", current: null, history: [] });
    expect(channels(dir.path)).toEqual([]);
    const { path } = changeChannel(dir.path, "stable", () => event("a"));
    changeChannel(dir.path, "stable", ({ current }) => {
      expect(current?.release.champion.campaign).toBe("a");
      return event("b");
    });
    const file = ChannelFile.parse(JSON.parse(readFileSync(path, "utf8")));
    expect(file.current?.release.champion.campaign).toBe("b");
    expect(file.history.map((p) => p.release.champion.campaign)).toEqual(["a", "b"]);
    expect(readdirSync(channelsFolder(dir.path))).toEqual(["stable.json"]);
    expect(channels(dir.path)).toEqual(["stable"]);
  });

  it("keeps the last hundred", () => {
    using dir = tempDir("channel");
    for (let i = 0; i < 103; i++) changeChannel(dir.path, "c", () => event(`c${i}`));
    const { history, current } = readChannel(dir.path, "c");
    expect([history.length, history[0]?.release.champion.campaign, current?.release.champion.campaign]).toEqual([100, "c3", "c102"]);
  });

  it("has one writer at a time, names that lead nowhere else, and is not written where it was no channel file or nothing was decided", () => {
    using dir = tempDir("channel");
    for (const name of ["../x", "a/b", "", "a.b"]) expect(() => changeChannel(dir.path, name, () => event("a"))).toThrow(/channel/);
    mkdirSync(channelsFolder(dir.path));
    writeFileSync(join(channelsFolder(dir.path), "bad.json"), '{"v":2}');
    expect(() => changeChannel(dir.path, "bad", () => event("a"))).toThrow(/bad\.json is no channel file/);
    const lock = acquireLock(join(channelsFolder(dir.path), "c.lock"), "another");
    expect(() => changeChannel(dir.path, "c", () => event("a"))).toThrow(LockHeldError);
    lock.release();
    expect(() =>
      changeChannel(dir.path, "c", () => {
        throw new Error("no");
      }),
    ).toThrow("no");
    expect(channels(dir.path)).toEqual(["bad"]);
  });
});

describe("what a rollback goes back to", () => {
  it.each<[string, string[], string | null]>([
    ["the one before", ["a", "b"], "a"],
    ["nothing before the first", ["a"], null],
    ["nothing before the first, also once it was gone back to", ["a", "b", "a!"], null],
    ["one further each time", ["a", "b", "c", "b!"], "a"],
    ["what was served between, where one was promoted twice", ["a", "b", "a"], "b"],
    ["another tree, not the same again", ["a", "b", "b"], "a"],
    ["what was served before it was gone back to, if it was never promoted", ["a", "b!"], "a"],
  ])("is %s", (_, steps, expected) => {
    const history = steps.map((s) => event(s.replace("!", ""), s.endsWith("!") ? "rollback" : "promote"));
    const channel: ChannelFile = { v: 1, kind: "channel", name: "c", current: history.at(-1) ?? null, history };
    expect(servedBefore(channel)?.champion.campaign ?? null).toBe(expected);
  });
});
