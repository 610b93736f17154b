import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { sha256, StackExport, type Outcome } from "@vibeserve/shared";
import { expect, test, vi } from "vitest";
import { signedBy } from "../../coordinator/src/fleet/signature.ts";
import { shellWord } from "../../coordinator/src/release/stack-files.ts";
import { ask } from "../agent/kit.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { Site } from "../kit/vibeserve-process.ts";
import { compiler } from "../stacks/tree.ts";
import { writeServedInstallation } from "./served-installation.ts";

vi.setConfig({ testTimeout: 120_000 });

/** Nothing of this process's environment, and of its PATH only where the system's own tools are. */
const bare = (...argv: string[]): [string, string[]] => ["env", ["-i", "PATH=/usr/bin:/bin", ...argv]];

/** Sources of a Dockerfile's COPY lines that come from the folder itself. */
const copied = (dockerfile: string): string[] =>
  [...dockerfile.matchAll(/^COPY (?!--from)(.+)$/gm)].flatMap(([, words = ""]) => words.trim().split(/\s+/).slice(0, -1));

test("an exported champion is built and served by what was written alone, and says why it is believed", async () => {
  using dir = tempDir("export");
  const site = new Site(dir.path, {}, writeServedInstallation);
  const verb = async (...args: string[]) => {
    const command = site.run(...args);
    return { code: await command.ended, out: command.out(), err: command.err() };
  };
  try {
    expect(await site.start(site.target, "--baseline", "none").ended).toBe(0);
    const to = join(dir.path, "to");
    const text = (path: string) => readFileSync(join(to, path), "utf8");
    const exported = await verb("export", "--to", to, "--no-setup", "--json");
    expect(exported.err).toBe("");
    const said = JSON.parse(exported.out) as { same: boolean };
    // The agent of the campaign was simulated: what it called its build is no digest of a program.
    expect(said.same).toBe(false);
    const written = StackExport.parse(JSON.parse(text("export.json")));
    expect(written.build).toMatchObject({ sandbox: expect.stringMatching(/bubblewrap|none/) as string });
    for (const { path, sha256: digest } of written.files) expect(sha256(readFileSync(join(to, path))), path).toBe(digest);
    expect(written.files.map((f) => f.path)).toEqual(expect.arrayContaining(["build/stack", "source/stack.json", "evidence/log.jsonl"]));

    // Built again from its source, without anything of ours.
    rmSync(join(to, "build"), { recursive: true });
    execFileSync(...bare(`CXX=${compiler()}`, "sh", join(to, "build.sh")), { cwd: "/" });
    const [model, socket] = [join(dir.path, "m.gguf"), join(dir.path, "s.sock")];
    writeFileSync(model, "weights\n");
    expect(() => execFileSync(...bare("sh", join(to, "serve.sh")), { stdio: "pipe" })).toThrow(/usage: serve.sh MODEL/);
    const serving = spawn(...bare("CPUS=", join(to, "serve.sh"), model, socket), { cwd: "/" });
    try {
      await expect.poll(() => existsSync(socket), { timeout: 20_000 }).toBe(true);
      expect(await ask(socket, "/health")).toEqual({ model: "weights", cpus: expect.stringMatching(/^\d+(,\d+)*$/) as string });
    } finally {
      serving.kill();
      await once(serving, "exit");
    }

    expect(copied(text("Dockerfile"))).toEqual(["source/", "build.sh", "serve.sh"]);
    for (const path of copied(text("Dockerfile"))) expect(existsSync(join(to, path)), path).toBe(true);
    const { agent, crown, repeat } = JSON.parse(text("evidence/measurements.json")) as Evidence;
    for (const o of [crown, repeat]) {
      if (o?.status !== "measured") throw new Error("not measured");
      for (const arm of [o.challenger, o.champion]) expect(signedBy(agent.publicKey, arm)).toBe(true);
    }
    expect(JSON.parse(text("evidence/check-report.json"))).toMatchObject({ ok: true, level: "crown" });
    expect(JSON.parse(text("evidence/certificates.json"))).toHaveLength(4);
    const facts = text("evidence/log.jsonl")
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { fact: { type: string } }).fact.type);
    expect(facts).toEqual(
      expect.arrayContaining([
        "campaign.created",
        "device.bound",
        "experiment.proposed",
        "job.settled",
        "champion.crowned",
        "campaign.ended",
      ]),
    );
    expect(text("README.md")).toMatch(/^# tiny's own: champion tiny-\w+\.e\d[^]*SIMULATED/);

    expect(await verb("export", "--to", to)).toMatchObject({ code: 2, err: expect.stringMatching(/is not empty/) as string });
    expect(await verb("export", "nobody", "--to", join(dir.path, "x"))).toMatchObject({
      code: 2,
      err: expect.stringMatching(/no champion nobody/) as string,
    });
    const plain = await verb("export", written.release.champion.campaign, "--to", join(dir.path, "plain"), "--no-build");
    expect(plain).toMatchObject({ code: 0, out: expect.stringMatching(/nothing was built/) as string });
    expect(existsSync(join(dir.path, "plain/build"))).toBe(false);
  } finally {
    site.cleanUp();
  }
});

interface Evidence {
  agent: { publicKey: string };
  crown: Outcome | null;
  repeat: Outcome | null;
}

test("a word of a command is itself to a shell, whatever is in it; only the variables are replaced", () => {
  const words = ["a b", "it's", "$HOME", "`id`", "", "--x=${OUT}/y z", "${SOCKET}", "\\", '"', "*"];
  const script = `OUT=/o; SOCKET='s p'; for w in ${words.map(shellWord).join(" ")}; do printf '%s\\0' "$w"; done`;
  const out = execFileSync(...bare("sh", "-c", script)).toString();
  expect(out.split("\0").slice(0, -1)).toEqual(["a b", "it's", "$HOME", "`id`", "", "--x=/o/y z", "s p", "\\", '"', "*"]);
});
