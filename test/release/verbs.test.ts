import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ChannelFile } from "@vibeserve/shared";
import { expect, test, vi } from "vitest";
import { stringify } from "yaml";
import { site } from "../kit/sites.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

vi.setConfig({ testTimeout: 180_000 });

const matching = (pattern: RegExp) => expect.stringMatching(pattern) as string;

test("champions, promote, rollback, matrix and requalify, as a person types them", async () => {
  using s = site();
  const verb = async (...args: string[]) => {
    const command = s.at.run(...args);
    return { code: await command.ended, out: command.out(), err: command.err() };
  };
  const json = async <T>(...args: string[]): Promise<T> => JSON.parse((await verb(...args, "--json")).out) as T;
  writeFileSync(s.at.target, stringify({ ...tinyTarget, budget: { ...tinyTarget.budget, experiments: 1 } }));
  expect(await s.at.start(s.at.target, "--baseline", "none").ended).toBe(0);
  const { champions } = await json<{ champions: { name: string; standing: { state: string }; channels: string[] }[] }>("champions");
  expect(champions.map((c) => [c.standing.state, c.channels])).toEqual([["proven", []]]);
  const name = champions[0]?.name ?? "";
  const file = join(s.at.data, "channels/stable.json");

  expect(await verb("promote", name)).toMatchObject({ code: 1, err: matching(/simulated device[^]*--force/) });
  expect(await verb("promote", "nobody")).toMatchObject({ code: 2, err: matching(new RegExp(`no champion nobody; there are: ${name}`)) });
  expect(await verb("promote", name, "--channel", "../x", "--force")).toMatchObject({ code: 2, err: matching(/a name has/) });
  const promoted = await verb("promote", name, "--force", "--reason", "a test", "--export", "/srv/stack");
  expect(promoted).toMatchObject({ code: 0, out: matching(/channel stable serves .*although it was measured on a simulated device/) });
  expect(ChannelFile.parse(JSON.parse(readFileSync(file, "utf8"))).current).toMatchObject({
    ...{ action: "promote", reason: "a test", exportedTo: "/srv/stack", overridden: "it was measured on a simulated device" },
    release: { target: "tiny", branch: matching(/^champion\/tiny-/), evidence: { repeat: { pairs: 4 } } },
  });
  expect(await verb("rollback")).toMatchObject({ code: 2, err: matching(/served nothing before/) });
  expect(await verb("rollback", "--channel", "empty")).toMatchObject({ code: 2, err: matching(/serves nothing/) });
  expect(await verb("champions")).toMatchObject({ out: matching(/tiny +avx2 +[\d.]+× \[.*\] \(4 pairs\) +proven +stable/) });

  const table = await verb("matrix");
  expect(table.out).toMatch(/champion +tiny@avx2\n[─ ]+\ntiny-\w+\.e\d +5\.\d\d× \[/);
  expect(table.out).toMatch(/fewest stacks that keep 0\.95 of the gain: tiny-\w+\.e\d/);
  expect(await verb("matrix", "--keep", "2")).toMatchObject({ code: 2, err: matching(/not a share/) });
  expect(await verb("requalify", name)).toMatchObject({ code: 3, err: matching(/no coordinator runs/) });

  const up = s.at.run("up");
  await up.printed(/coordinator ready/);
  const agent = s.at.run("agent", "--no-setup");
  await agent.printed(/enrolled/);
  expect(await verb("requalify", name)).toMatchObject({ code: 1, err: matching(/nothing has changed.*--because schedule/) });
  expect(await verb("requalify", name, "--because", "fun")).toMatchObject({
    code: 2,
    err: matching(/allowed: driver, toolchain, model, workload, schedule/),
  });
  expect(await verb("requalify")).toMatchObject({ code: 2, err: matching(/name a champion, or give --all/) });
  const { submitted } = await json<{ submitted: { campaign: string }[] }>("requalify", "--all", "--because", "schedule");
  const watched = await verb("watch", submitted[0]?.campaign ?? "");
  expect(watched.out).toMatch(/is still-good \(tested for schedule\)/);
  const after = await json<{ champions: { standing: { proof: { campaign: string } } }[] }>("champions");
  expect(after.champions.map((c) => c.standing.proof.campaign)).toEqual([submitted[0]?.campaign]);

  // A second target comes to another champion, and tries the first one's tree on the way.
  const other = join(s.at.dir, "other.yaml");
  writeFileSync(other, stringify({ ...tinyTarget, name: "other", workload: { ...tinyTarget.workload, requests: 24 } }));
  const { campaign } = await json<{ campaign: string }>("submit", other, "--baseline", "none");
  expect(await verb("watch", campaign)).toMatchObject({ code: 0 });
  const { unknown, submitted: measuring } = await json<{ unknown: number; submitted: string[] }>("matrix", "--measure");
  expect([unknown, measuring.length]).toEqual([1, 1]);
  for (const id of measuring) expect((await verb("watch", id)).out).toMatch(/measured 1 champions against the seed; nothing is crowned/);
  const full = await json<{ columns: string[]; rows: { cells: { known: string; evidence: string }[] }[]; stacks: string[] }>("matrix");
  expect(full.columns).toEqual(["other@avx2", "tiny@avx2"]);
  expect(full.rows.flatMap((r) => r.cells.map((c) => c.known))).toEqual(Array(4).fill("measured"));
  expect(full.rows.flatMap((r) => r.cells.map((c) => c.evidence.split(".")[0]))).toEqual(expect.arrayContaining(measuring));
  expect(full.stacks).toEqual([expect.stringMatching(/^other-/)]);
  // A rollback is never refused; what speaks against it is on record.
  expect(await verb("promote", campaign, "--force")).toMatchObject({ code: 0 });
  const back = await json<{ current: { action: string; overridden: string; exportedTo: string; reason: string } }>(
    "rollback",
    "--reason",
    "slow",
  );
  expect(back.current).toMatchObject({ action: "rollback", reason: "slow", overridden: matching(/simulated/), exportedTo: "/srv/stack" });
  await s.at.stop();
});
