import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { findCompiler } from "../../gpu-agent/src/probe/compiler.ts";
import { flagsOfCpuinfo, probeCpu } from "../../gpu-agent/src/probe/cpu-features.ts";
import { readTopology } from "../../gpu-agent/src/probe/cpu-topology.ts";
import { cpuDevice, poolOf } from "../../gpu-agent/src/probe/device.ts";
import { isaOf } from "../../gpu-agent/src/probe/isa.ts";
import { ConfigError, readConfig } from "../../gpu-agent/src/config.ts";
import { cleanText, LogRing } from "../../gpu-agent/src/process/log-ring.ts";
import { tempDir } from "../kit/temp-dir.ts";

it("the probe, by CPUID and XGETBV, agrees with the kernel on every bit but tiles, which need a permission that the kernel does not list", async () => {
  using dir = tempDir("probe");
  const compiler = await findCompiler(null);
  const probed = await probeCpu(compiler, dir.path);
  expect(probed.source).toBe("cpuid");
  const kernel = flagsOfCpuinfo(readFileSync("/proc/cpuinfo", "utf8"));
  const plain = (bits: readonly string[]): string[] => bits.filter((b) => !b.startsWith("amx")).sort();
  expect(plain(probed.bits)).toEqual(plain(kernel));
  const [file = "", seal, ...more] = readdirSync(dir.path).sort();
  expect([seal, more]).toEqual([`${file}.sha256`, []]);
  const cached = join(dir.path, file);
  const changed = statSync(cached).mtimeMs;
  expect((await probeCpu(compiler, dir.path)).bits).toEqual(probed.bits);
  expect(statSync(cached).mtimeMs).toBe(changed);
  writeFileSync(cached, JSON.stringify({ bits: ["amx_tile", "avx512f"] }));
  expect((await probeCpu(compiler, dir.path)).bits).toEqual(probed.bits);
  expect(JSON.parse(readFileSync(cached, "utf8"))).toEqual({ bits: probed.bits });
});

it("where there is no compiler the bits come from /proc/cpuinfo, and a label says so", async () => {
  using dir = tempDir("probe");
  const features = await probeCpu(null, dir.path);
  const device = cpuDevice(readTopology(), features, "a1", null);
  expect(device.labels).toMatchObject({
    "vibeserve.dev/cpu.isa.source": "cpuinfo",
    "vibeserve.dev/compiler": "none",
    "vibeserve.dev/device.kind": "cpu",
  });
});

it("a named compiler that is not there, or does not run, is an error and not another compiler", async () => {
  await expect(findCompiler("no-such-c++")).rejects.toThrow(/no-such-c\+\+.*absolute path/);
  await expect(findCompiler("/bin/false")).rejects.toThrow();
});

it("the best instruction set is decided by bits: tiles need AVX-512 beside them, AVX-512 needs its byte and short vectors", () => {
  const zen3 = ["avx", "avx2", "fma", "f16c"];
  const zen4 = [...zen3, "avx512f", "avx512bw", "avx512vl", "avx512_vnni"];
  expect(isaOf(zen3)).toBe("avx2");
  expect(isaOf(zen4)).toBe("avx512-vnni");
  expect(isaOf([...zen4, "amx_tile", "amx_int8", "amx_bf16"])).toBe("amx");
  expect(isaOf(["avx2"])).toBe("scalar");
  expect(isaOf([...zen3, "avx512f"])).toBe("avx2");
  expect(isaOf(["neon", "dotprod"])).toBe("neon");
  expect(flagsOfCpuinfo("processor : 0\nFeatures\t: fp asimd asimddp i8mm sve\n")).toEqual(["neon", "dotprod", "sve", "i8mm"]);
});

it("cores are what affinity allows, and name the pool", () => {
  const one = execFileSync(
    "taskset",
    [
      "-c",
      "0",
      process.execPath,
      "-e",
      `import(${JSON.stringify(join(import.meta.dirname, "../../gpu-agent/src/probe/cpu-topology.ts"))}).then(m => console.log(JSON.stringify(m.readTopology().cpus)))`,
    ],
    { encoding: "utf8" },
  );
  expect(JSON.parse(one)).toEqual([0]);
  const device = cpuDevice({ ...readTopology(), cpus: [0, 1, 2] }, { bits: ["avx2", "fma", "f16c"], source: "cpuid" }, "a1", null);
  expect(device).toMatchObject({ id: "a1-cpu", cores: 3, cpus: "0,1,2", isa: "avx2" });
  expect(poolOf(device)).toBe("cpu-avx2-3c");
});

it("configuration: flag over environment over file over default; what is wrong is named", () => {
  using dir = tempDir("config");
  const data = join(dir.path, "data");
  mkdirSync(data);
  writeFileSync(join(data, "agent.json"), JSON.stringify({ agentId: "from-file", pool: "file-pool", servers: ["nats://file:1"] }));
  const env = { VIBESERVE_AGENT_AGENT_ID: "from-env", VIBESERVE_AGENT_SERVERS: "nats://a:1,nats://b:2" };
  const { config } = readConfig(["--data", data, "--agent-id", "from-flag", "--drain-ms", "5"], env);
  expect(config).toMatchObject({ agentId: "from-flag", servers: ["nats://a:1", "nats://b:2"], pool: "file-pool", drainMs: 5, cxx: null });
  expect(readConfig(["--data", data], env).config.agentId).toBe("from-env");
  expect(() => readConfig(["--data", data, "--agent-id", "a b"], {})).toThrow(/agentId: must be/);
  expect(() => readConfig(["--nope"], {})).toThrow(ConfigError);
  writeFileSync(join(data, "agent.json"), JSON.stringify({ join: "nonsense", builderOnly: true }));
  expect(() => readConfig(["--data", data], {})).toThrow(/agent\.json: join: not a join line/);
  expect(
    readConfig(["--data", join(dir.path, "other"), "--builder-only"], { VIBESERVE_AGENT_UNSAFE_NO_SANDBOX: "1" }).config,
  ).toMatchObject({
    ...{ builderOnly: true, unsafeNoSandbox: true, pool: null, join: null, drainMs: 10_000 },
  });
  writeFileSync(join(data, "agent.json"), JSON.stringify({ agentid: "x" }));
  expect(() => readConfig(["--data", data], {})).toThrow(/agent\.json.*agentid/);
});

it("a log keeps its beginning and its end, and nothing in it can steer a terminal", () => {
  const ring = new LogRing();
  for (let i = 0; i < 100_000; i++) ring.write(Buffer.from(`line ${i}\n`));
  expect(ring.text()).toMatch(/^line 0\nline 1\n/);
  expect(ring.text()).toMatch(/bytes left out …\n/);
  expect(ring.tail(20)).toBe("99998\nline 99999\n".slice(-20).padStart(20, "ne "));
  expect(ring.ends(3000).length).toBeLessThanOrEqual(3000);
  expect(cleanText("a\u001b[31mred\u001b[0m\u001b]0;title\u0007b\r\nc\rd\u202Ee\u0000f\u009b2Jg")).toBe("aredb\nc\ndefg");
});
