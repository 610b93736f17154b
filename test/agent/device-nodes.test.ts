import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Device } from "@vibeserve/shared";
import { expect, it } from "vitest";
import { bwrapArgv } from "../../gpu-agent/src/sandbox/bwrap-argv.ts";
import { deviceNodes, withDevices } from "../../gpu-agent/src/sandbox/device-nodes.ts";
import { rlimitArgv, SERVE_LIMITS } from "../../gpu-agent/src/sandbox/rlimits.ts";
import { seatbeltProfile } from "../../gpu-agent/src/sandbox/seatbelt.ts";
import { spawnSandboxed } from "../../gpu-agent/src/sandbox/spawn.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { bubblewrap } from "./kit.ts";

const device = (kind: Device["kind"], labels: Record<string, string>): Device => ({
  ...{ id: "d", kind, name: "", isa: "", isaBits: [], cores: 1, cpus: "0", memBytes: 1, labels, simulated: false },
});

/** A root with these files; a mode for those that not everyone may open. */
function root(files: Record<string, number>): { path: string } & Disposable {
  const dir = tempDir("nodes");
  for (const [path, mode] of Object.entries(files)) {
    mkdirSync(dirname(join(dir.path, path)), { recursive: true });
    writeFileSync(join(dir.path, path), "");
    chmodSync(join(dir.path, path), mode);
  }
  return dir;
}

it("an NVIDIA card's own node is let through with the driver's, and no other card's; a slice also gets the capabilities", () => {
  using dir = root({
    "dev/nvidiactl": 0o666,
    "dev/nvidia-uvm": 0o666,
    "dev/nvidia0": 0o666,
    "dev/nvidia1": 0o660,
    "dev/nvidia-caps/nvidia-cap1": 0o444,
  });
  const labels = { "vibeserve.dev/gpu.minor": "1", "vibeserve.dev/gpu.uuid": "GPU-1" };
  const nodes = deviceNodes(device("nvidia", labels), dir.path);
  expect(nodes).toMatchObject({ nodes: ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia1"], env: { CUDA_VISIBLE_DEVICES: "GPU-1" } });
  expect(nodes?.groups).toHaveLength(1);
  const slice = deviceNodes(device("nvidia", { ...labels, "nvidia.com/gpu.slices.gi": "1" }), dir.path);
  expect(slice?.nodes).toContain("/dev/nvidia-caps");
  // A container that hides the minor number: with two cards the right one is not known.
  expect(() => deviceNodes(device("nvidia", {}), dir.path)).toThrow("the device file of d is not known: 2 in");
  expect(() => deviceNodes(device("nvidia", { "vibeserve.dev/gpu.minor": "7" }), dir.path)).toThrow("/dev/nvidia7 is not there");
});

it("several cards are let through together, named in one variable, with the links between them; a card without a name hides the variable", async () => {
  using dir = root({ "dev/nvidiactl": 0o666, "dev/nvidia-uvm": 0o666, "dev/nvidia0": 0o660, "dev/nvidia1": 0o666, "sys/bus/pci/x": 0o444 });
  const cards = ["0", "1"].map((n) => device("nvidia", { "vibeserve.dev/gpu.minor": n, "vibeserve.dev/gpu.uuid": `GPU-${n}` }));
  const sandbox = await bubblewrap();
  const both = withDevices(sandbox, cards, dir.path).device;
  expect(both).toMatchObject({
    nodes: ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidia1"],
    readOnly: ["/sys/bus/pci"],
    env: { CUDA_VISIBLE_DEVICES: "GPU-0,GPU-1", NCCL_SOCKET_IFNAME: "lo" },
    shmBytes: 2 * 2 ** 30,
  });
  expect(both?.groups).toHaveLength(1);
  expect(withDevices(sandbox, cards.slice(1), dir.path).device).toEqual(deviceNodes(cards[1]!, dir.path));
  const unnamed = device("nvidia", { "vibeserve.dev/gpu.minor": "1" });
  expect(withDevices(sandbox, [cards[0]!, unnamed], dir.path).device?.env).not.toHaveProperty("CUDA_VISIBLE_DEVICES");
  expect(withDevices(sandbox, [device("cpu", {})])).toBe(sandbox);
});

it("an AMD card's render node is found by its place on the bus; the groups of closed nodes are named", () => {
  using dir = root({ "dev/kfd": 0o660, "dev/dri/renderD128": 0o660, "dev/dri/renderD129": 0o660, "sys/class/kfd/x": 0o444 });
  mkdirSync(join(dir.path, "sys/bus/pci/devices/0000:46:00.0/drm/renderD129"), { recursive: true });
  mkdirSync(join(dir.path, "sys/bus/pci/devices/0000:46:00.0/drm/card1"), { recursive: true });
  const labels = { "vibeserve.dev/gpu.bus-id": "0000:46:00.0", "vibeserve.dev/gpu.uuid": "GPU-b4fa34630e85d42a" };
  expect(deviceNodes(device("amd", labels), dir.path)).toEqual({
    nodes: ["/dev/kfd", "/dev/dri/renderD129"],
    readOnly: ["/sys/class/kfd", "/sys/bus/pci"],
    groups: [process.getgid?.() ?? 0],
    env: { ROCR_VISIBLE_DEVICES: "GPU-b4fa34630e85d42a" },
  });
  expect(() => deviceNodes(device("amd", { "vibeserve.dev/gpu.bus-id": "0000:65:00.0" }), dir.path)).toThrow(
    "the render node of d is not known",
  );
  expect(deviceNodes(device("cpu", {}), dir.path)).toBeNull();
});

it("bubblewrap binds the nodes after its own /dev, and no address space is bounded then", () => {
  const plan = {
    ...{ bwrap: "bwrap", drop: "setuid" as const, seccomp: false, mounts: [], env: {}, cwd: "/", tmpBytes: 1, argv: ["x"] },
    device: { nodes: ["/dev/kfd", "/dev/dri/renderD129"], readOnly: ["/sys/class/kfd"], groups: [], env: {} },
  };
  const argv = bwrapArgv(plan).join(" ");
  expect(argv).toMatch(
    /--dev \/dev .*--dir \/dev\/dri .*--dev-bind \/dev\/kfd \/dev\/kfd --dev-bind \/dev\/dri\/renderD129 \/dev\/dri\/renderD129 .*--remount-ro \/dev /,
  );
  expect(argv).toContain("--ro-bind /sys/class/kfd /sys/class/kfd");
  expect(rlimitArgv("prlimit", SERVE_LIMITS, true).join(" ")).not.toContain("--as=");
  expect(rlimitArgv("prlimit", SERVE_LIMITS).join(" ")).toContain("--as=");
});

it("in a real sandbox the device's node is there, with its variable, and the others are not", async () => {
  const [there = "", other = ""] = ["/dev/fuse", "/dev/autofs", "/dev/kmsg", "/dev/hwrng", "/dev/loop0"].filter((node) => existsSync(node));
  expect(other, "this machine has two device files that a sandbox hides").not.toBe("");
  const sandbox = {
    ...(await bubblewrap()),
    device: { nodes: [there], readOnly: ["/sys/bus"], groups: [4711], env: { CUDA_VISIBLE_DEVICES: "GPU-1" } },
  };
  const tree = await spawnSandboxed(sandbox, {
    argv: ["/bin/sh", "-c", `ls -d ${there} ${other} /sys/bus 2>&1; echo $CUDA_VISIBLE_DEVICES; id -G`],
    ...{ env: {}, mounts: [], cwd: "/tmp", cpus: null, limits: SERVE_LIMITS, provenance: "shipped" as const },
  });
  try {
    await tree.exited;
    await tree.logEnded();
    const text = tree.log.text();
    expect(text).toMatch(new RegExp(`^${there}$`, "m"));
    expect(text).toMatch(new RegExp(`cannot access '${other}'`));
    expect(text).toMatch(/^\/sys\/bus$/m);
    expect(text).toMatch(/^GPU-1$/m);
    if (process.getuid?.() === 0) expect(text).toMatch(/\b4711\b/);
  } finally {
    await tree.stop(0);
  }
});

it("macOS's profile denies all that it does not name; what is named is quoted, and what can't be is refused", () => {
  const profile = seatbeltProfile({ readable: ['/Users/a/we"ird\\name'], writable: ["/tmp/out", "/tmp/s"], gpu: true });
  const lines = profile.split("\n");
  expect(lines.slice(0, 2)).toEqual(["(version 1)", "(deny default)"]);
  expect(profile).toContain(String.raw`(subpath "/Users/a/we\"ird\\name")`);
  expect(profile).toContain("AGXDeviceUserClient");
  const writes = lines.filter((line) => line.startsWith("(allow file-write*"));
  expect(writes.join()).not.toContain("/Users");
  expect(lines.filter((line) => line.includes("network"))).toEqual([
    '(allow network-bind network-inbound (local unix-socket (subpath "/tmp/out")) (local unix-socket (subpath "/tmp/s")))',
  ]);
  let depth = 0;
  for (const c of profile.replaceAll(/"(?:[^"\\]|\\.)*"/g, "")) {
    depth += c === "(" ? 1 : c === ")" ? -1 : 0;
    expect(depth).toBeGreaterThanOrEqual(0);
  }
  expect(depth).toBe(0);
  const plain = seatbeltProfile({ readable: [], writable: [], gpu: false });
  expect(plain).not.toMatch(/network|iokit|mach-lookup/);
  // The agent's key and hidden prompts lie below, and its candidates run as the same user.
  expect(plain).not.toMatch(/"\/usr(\/local[^"]*)?"|"\/(Users|private|private\/var|etc|System|System\/Volumes)"/);
  expect(() => seatbeltProfile({ readable: ["/a\n(allow default)"], writable: [], gpu: false })).toThrow(TypeError);
  expect(() => seatbeltProfile({ readable: ["relative"], writable: [], gpu: false })).toThrow(TypeError);
});
