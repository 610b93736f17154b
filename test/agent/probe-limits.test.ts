import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, it } from "vitest";
import { confinementLabels } from "../../gpu-agent/src/probe/confinement.ts";
import { cgroupLimits, readTopology } from "../../gpu-agent/src/probe/cpu-topology.ts";
import { tempDir } from "../kit/temp-dir.ts";

/** A machine of eight processors and 16 GiB, with these files over it. */
function machine(files: Record<string, string>): { path: string } & Disposable {
  const dir = tempDir("machine");
  const all = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: a processor\n",
    "proc/meminfo": "MemTotal:       16777216 kB\n",
    "proc/self/status": "Cpus_allowed_list:\t0-7\n",
    ...files,
  };
  for (const [path, text] of Object.entries(all)) {
    mkdirSync(dirname(join(dir.path, path)), { recursive: true });
    writeFileSync(join(dir.path, path), text);
  }
  return dir;
}

it("version 2: the tightest limit on the way up holds, wherever it is set", () => {
  using dir = machine({
    "proc/self/cgroup": "0::/kubepods/pod1/ctr\n",
    "sys/fs/cgroup/kubepods/pod1/ctr/cpu.max": "max 100000\n",
    "sys/fs/cgroup/kubepods/pod1/cpu.max": "350000 100000\n",
    "sys/fs/cgroup/kubepods/cpu.max": "600000 100000\n",
    "sys/fs/cgroup/kubepods/pod1/ctr/memory.max": "8589934592\n",
    "sys/fs/cgroup/kubepods/pod1/memory.max": "4294967296\n",
    "sys/fs/cgroup/kubepods/memory.max": "max\n",
    "var/run/secrets/kubernetes.io/x": "",
  });
  expect(cgroupLimits(dir.path)).toEqual({ cpus: 3.5, memBytes: 2 ** 32 });
  expect(readTopology(dir.path)).toMatchObject({ model: "a processor", cpus: [0, 1, 2], memBytes: 2 ** 32 });
  expect(confinementLabels(dir.path)).toEqual({
    "vibeserve.dev/container": "kubernetes",
    "vibeserve.dev/limit.cpus": "3.5",
    "vibeserve.dev/limit.mem.mib": "4096",
  });
});

it("version 1: each controller has its own folder, and its number for no limit is none", () => {
  using dir = machine({
    "proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n",
    "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "150000\n",
    "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000\n",
    "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
    "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/docker/memory.limit_in_bytes": "2147483648\n",
    ".dockerenv": "",
  });
  expect(readTopology(dir.path)).toMatchObject({ cpus: [0], memBytes: 2 ** 31 });
  expect(confinementLabels(dir.path)["vibeserve.dev/container"]).toBe("docker");
});

it("a machine whose disk was made from a container's image is no container, whatever file the image left on it", () => {
  const root = (line: string): Record<string, string> => ({
    ".dockerenv": "",
    "proc/self/mountinfo": `22 27 0:21 / /proc rw - proc proc rw\n${line}\n`,
  });
  using disk = machine(root("27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard,resv_strict"));
  expect(confinementLabels(disk.path)).toEqual({});
  for (const line of [
    "612 480 0:52 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/var/lib/docker/l",
    "612 480 8:1 /var/lib/docker/vfs/dir/abc / rw,relatime - ext4 /dev/sda1 rw",
  ]) {
    using container = machine(root(line));
    expect(confinementLabels(container.path)["vibeserve.dev/container"], line).toBe("docker");
  }
});

it("in a container's own namespace the path is /, and less than one processor is still one", () => {
  using dir = machine({
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/cpu.max": "50000 100000\n",
    "sys/fs/cgroup/memory.max": "1073741824\n",
  });
  expect(readTopology(dir.path)).toMatchObject({ cpus: [0], memBytes: 2 ** 30 });
});

it("affinity and memory bound a machine that has no limits, and there are no labels then", () => {
  using dir = machine({ "proc/self/cgroup": "0::/user.slice\n" });
  expect(readTopology(dir.path)).toMatchObject({ cpus: [0, 1, 2, 3, 4, 5, 6, 7], memBytes: 2 ** 34 });
  expect(confinementLabels(dir.path)).toEqual({});
});

it("a system without /proc gives Node's own figures", () => {
  using dir = tempDir("no-proc");
  const { cpus, memBytes } = readTopology(dir.path);
  expect(cpus.length).toBeGreaterThan(0);
  expect(memBytes).toBeGreaterThan(2 ** 28);
  expect(memBytes).toBeLessThan(2 ** 50);
});
