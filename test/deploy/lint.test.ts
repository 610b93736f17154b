import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { readConfig } from "../../gpu-agent/src/config.ts";
import { LAST_RESORT_MS } from "../../gpu-agent/src/run-agent.ts";
import { findProgram } from "../kit/programs.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { cacheDir } from "../kit/weights.ts";
import { DEPLOY } from "./fake-bundle.ts";

const dir = tempDir("units");
afterAll(() => dir[Symbol.dispose]());
const run = (file: string, ...args: string[]) => {
  const { status, stdout, stderr, error } = spawnSync(file, args, { encoding: "utf8" });
  return { code: error ? null : status, text: `${stdout}${stderr}` };
};
const unit = (name: string): string => readFileSync(join(DEPLOY, "systemd", name), "utf8");
const value = (text: string, key: string): string => new RegExp(`^${key}=(.*)$`, "m").exec(text)?.[1] ?? "";
const endsInMs = (drainMs: number): number => drainMs + LAST_RESORT_MS;

/** A root with the units, the chosen drop-ins beside them, and programs for them to start. */
function rootWith(...dropIns: [unit: string, name: string][]): string {
  const root = join(dir.path, dropIns.flat().join("-") || "plain");
  for (const name of ["vibeserve-coordinator.service", "vibeserve-agent.service"]) {
    const path = join(root, "etc/systemd/system", name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, unit(name));
  }
  for (const [of, name] of dropIns) {
    mkdirSync(join(root, "etc/systemd/system", `${of}.d`), { recursive: true });
    writeFileSync(join(root, "etc/systemd/system", `${of}.d`, name), unit(`drop-ins/${name}`));
  }
  for (const name of ["vibeserve", "gpu-agent"]) {
    mkdirSync(join(root, "opt/vibeserve/bin"), { recursive: true });
    writeFileSync(join(root, "opt/vibeserve/bin", name), "#!/bin/sh\n", { mode: 0o755 });
  }
  return root;
}

describe("systemd units", () => {
  const noAnalyze = findProgram("systemd-analyze", [], "the check of units") === null;
  const exposure = (root: string, name: string): number =>
    Number(
      /exposure level for \S+: ([\d.]+)/.exec(
        run("systemd-analyze", "security", "--no-pager", "--offline=true", `--root=${root}`, name).text,
      )?.[1],
    );

  it.skipIf(noAnalyze)("are valid, also with each drop-in", () => {
    const dropIns: [string, string][] = [
      ["vibeserve-agent.service", "nvidia.conf"],
      ["vibeserve-agent.service", "amd.conf"],
      ["vibeserve-coordinator.service", "coding-clis.conf"],
    ];
    for (const root of [rootWith(), ...dropIns.map((one) => rootWith(one)), rootWith(...dropIns)])
      for (const name of ["vibeserve-coordinator.service", "vibeserve-agent.service"]) {
        const path = join(root, "etc/systemd/system", name);
        const checked = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", path);
        // Programs are looked for in this machine's own root.
        expect(checked.text.replace(/^.*Command \/opt\/vibeserve\/bin\/\S+ is not executable.*\n?/gm, ""), path).toBe("");
      }
    writeFileSync(
      join(rootWith(), "etc/systemd/system/wrong.service"),
      unit("vibeserve-agent.service").replace("ProtectClock=", "ProtectClok="),
    );
    expect(run("systemd-analyze", "verify", "--man=no", join(rootWith(), "etc/systemd/system/wrong.service")).text).toContain(
      "ProtectClok",
    );
  });

  it.skipIf(noAnalyze)(
    "are exposed no more than docs/install/bare-linux.md says: the coordinator under 3, the agent by what its sandbox needs",
    () => {
      const said = readFileSync(join(DEPLOY, "../docs/install/bare-linux.md"), "utf8");
      const rows: [string, [string, string][]][] = [
        ["vibeserve-coordinator.service", []],
        ["vibeserve-coordinator.service", [["vibeserve-coordinator.service", "coding-clis.conf"]]],
        ["vibeserve-agent.service", []],
        ["vibeserve-agent.service", [["vibeserve-agent.service", "nvidia.conf"]]],
        ["vibeserve-agent.service", [["vibeserve-agent.service", "amd.conf"]]],
      ];
      for (const [name, dropIns] of rows) {
        const measured = exposure(rootWith(...dropIns), name);
        const label = [name.replace(".service", ""), ...dropIns.map(([, file]) => `with ${file}`)].join(" ");
        const limit = Number(new RegExp(`\\| ${label.replace(".", "\\.")} \\| ([\\d.]+) \\|`).exec(said)?.[1]);
        expect(measured, label).toBeGreaterThan(0);
        expect(measured, `${label}: the table says ${limit}`).toBeLessThanOrEqual(limit);
        if (label === "vibeserve-coordinator") expect(measured).toBeLessThanOrEqual(3);
      }
    },
  );

  it("wait for a drain longer than the agent takes, and do not start again what was refused", () => {
    for (const name of ["vibeserve-agent.service", "vibeserve-coordinator.service"]) {
      expect(value(unit(name), "RestartPreventExitStatus").split(" ")).toContain("77");
      expect(value(unit(name), "KillMode")).toBe("mixed");
    }
    const { drainMs } = readConfig([], {}).config;
    expect(Number(value(unit("vibeserve-agent.service"), "TimeoutStopSec")) * 1000).toBeGreaterThan(endsInMs(drainMs));
  });
});

describe("launchd plist", () => {
  const noPython = findProgram("python3", [], "the check of the plist") === null;
  const plist = join(DEPLOY, "launchd/ai.vibeserve.agent.plist");

  it.skipIf(noPython)("parses, and says what launchd must know", () => {
    const script = "import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))";
    const parsed = run("python3", "-c", script, plist);
    expect(parsed.code, parsed.text).toBe(0);
    const keys = JSON.parse(parsed.text) as Record<string, unknown> & { ProgramArguments: string[]; ExitTimeOut: number };
    expect(keys).toMatchObject({
      Label: "ai.vibeserve.agent",
      UserName: "_vibeserve",
      RunAtLoad: true,
      KeepAlive: { SuccessfulExit: false },
      Umask: 0o77,
    });
    expect(keys.ProgramArguments.slice(0, 3)).toEqual([
      "/bin/sh",
      "/opt/vibeserve/deploy/launchd/run-agent.sh",
      "/opt/vibeserve/bin/gpu-agent",
    ]);
    expect(keys.ExitTimeOut * 1000).toBeGreaterThan(endsInMs(readConfig([], {}).config.drainMs));
    // launchd.plist(5); a key that it does not know is ignored, so a slip of the pen would be too.
    const known =
      "Label ProgramArguments UserName GroupName WorkingDirectory EnvironmentVariables RunAtLoad KeepAlive ThrottleInterval ExitTimeOut ProcessType Umask SoftResourceLimits StandardOutPath StandardErrorPath";
    expect(Object.keys(keys).sort()).toEqual(known.split(" ").sort());
  });

  it.skipIf(!existsSync("/usr/bin/plutil"))("passes plutil", () => {
    expect(run("/usr/bin/plutil", "-lint", plist)).toMatchObject({ code: 0 });
  });

  it("is run by a script that hands SIGTERM on, waits for the drain, and turns a refusal into 0", () => {
    const script = join(DEPLOY, "launchd/run-agent.sh");
    const ended = (code: number): number | null => run("/bin/sh", script, "/bin/sh", "-c", `exit ${code}`).code;
    expect([0, 1, 2, 70, 77].map(ended)).toEqual([0, 1, 0, 70, 0]);
    const drains = "trap 'sleep 0.3; echo drained; exit 5' TERM; echo up; while :; do sleep 0.05; done";
    const told = run("/bin/sh", "-c", `sh ${script} sh -c "${drains}" & p=$!; sleep 0.5; kill -TERM $p; wait $p; echo code $?`);
    expect(told.text).toBe("up\ndrained\ncode 5\n");
    expect(run("/bin/sh", script, "/bin/sh", "-c", "kill -KILL $$").code).toBe(137);
  });
});

describe("shell scripts", () => {
  const checker = findProgram("shellcheck", [join(cacheDir(), "test-python/bin")], "the check of shell scripts");

  it.skipIf(checker === null)("pass shellcheck, which is there", () => {
    const scripts = readdirSync(DEPLOY, { recursive: true, encoding: "utf8" }).filter((path) => /\.(sh|sbatch)$/.test(path));
    expect(scripts.length).toBeGreaterThanOrEqual(4);
    const checked = run(
      checker ?? "",
      "-x",
      "--source-path",
      join(DEPLOY, ".."),
      ...scripts.map((path) => join(DEPLOY, path)),
      ...["kit/machine.sh", "slow/bundle/arm64.sh", "deploy/mac/dscl", "deploy/mac/sudo"].map((path) => join(DEPLOY, "../test", path)),
    );
    expect(checked).toEqual({ code: 0, text: "" });
    writeFileSync(join(dir.path, "wrong.sh"), "#!/bin/sh\necho $1\n");
    expect(run(checker ?? "", join(dir.path, "wrong.sh")).text).toContain("SC2086");
  });
});
