import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FIXTURES } from "./probe-kit.ts";

/** The two cards, as a stack and the coordinator know them. */
export const UUIDS = ["GPU-b42dd28e-ffdd-8720-1df0-98bd8cdc05b1", "GPU-c53ee39f-00ee-9831-2ef1-a9ce9ded16c2"];
const BUSES = ["00000000:18:00.0", "00000000:2A:00.0"];

/** Whether a process here may have device files of its own. */
export const namespaces = process.getuid?.() === 0 && spawnSync("unshare", ["-m", "true"]).status === 0;

/** A machine with two H100: what nvidia-smi prints of the first is a published output, of the second the same with other ids; `lose` makes it fall off the bus. */
export function twoGpus(dir: string): { tools: string; within: readonly string[]; lose(): void } {
  const [tools, dev] = [join(dir, "tools"), join(dir, "dev")];
  mkdirSync(tools);
  mkdirSync(dev);
  const published = readFileSync(join(FIXTURES, "nvidia/h100-q.txt"), "utf8").replace(/(Attached GPUs\s+: )8/, "$12");
  const [head = "", card = ""] = published.split(/^(?=GPU 0)/m);
  const second = card
    .replaceAll("18:00.0", "2A:00.0")
    .replace(UUIDS[0]!, UUIDS[1]!)
    .replace(/(Minor Number\s+: )0/, "$11");
  for (const [name, text] of Object.entries({ both: head + card + second, "18": head + card, "2A": head + second }))
    writeFileSync(join(tools, `q-${name}`), text);
  const topology = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV18\t0-1\nGPU1\tNV18\t X \t0-1\n";
  const script = `#!/bin/sh
dir=${tools}
gone() { echo "Unable to determine the device handle for GPU $1: GPU is lost. Reboot the system to recover this GPU"; exit 15; }
case "$*" in *2A:00.0*) [ -e $dir/lost ] && gone ${BUSES[1]};; esac
case "$*" in
  *compute_cap*) printf 'uuid, compute_cap\\n${UUIDS.map((uuid) => `${uuid}, 9.0\\n`).join("")}' ;;
  *query-compute-apps*) cat ${join(FIXTURES, "nvidia/h200-vm-apps.txt")} ;;
  *query-gpu*) cat ${join(FIXTURES, "nvidia/h200-vm-throttle.txt")} ;;
  -L) printf '${UUIDS.map((uuid, i) => `GPU ${i}: NVIDIA H100 80GB HBM3 (UUID: ${uuid})\\n`).join("")}' ;;
  topo*) printf '${topology}' ;;
  *18:00.0*) cat $dir/q-18 ;;
  *2A:00.0*) cat $dir/q-2A ;;
  *) cat $dir/q-both ;;
esac
`;
  writeFileSync(join(tools, "nvidia-smi"), script);
  chmodSync(join(tools, "nvidia-smi"), 0o755);
  // A third card's file is there too: no sandbox may show it.
  const mounts = `set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs ${dev}
for n in null zero full random urandom tty; do touch ${dev}/$n; mount --bind /dev/$n ${dev}/$n; done
mkdir ${dev}/pts ${dev}/shm
mount --rbind /dev/pts ${dev}/pts
mount -t tmpfs tmpfs ${dev}/shm
ln -s pts/ptmx ${dev}/ptmx
ln -s /proc/self/fd ${dev}/fd
for n in nvidiactl nvidia-uvm nvidia0 nvidia1 nvidia2; do touch ${dev}/$n; chmod 666 ${dev}/$n; done
mount --rbind ${dev} /dev
exec "$@"`;
  return { tools, within: ["unshare", "-m", "sh", "-c", mounts, "sh"], lose: () => writeFileSync(join(tools, "lost"), "") };
}
