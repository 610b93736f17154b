import { existsSync, readdirSync, statSync } from "node:fs";
import { isSlice, type Device } from "@vibeserve/shared";
import { prepended } from "../config.ts";
import { driverLibraries } from "../device/nvidia-library.ts";
import type { Sandbox } from "./sandbox.ts";

/** What a sandbox lets through to its devices. */
export interface DeviceNodes {
  /** Device files, by their own names inside. */
  readonly nodes: readonly string[];
  /** What the vendor's runtime reads to find the device; each only where it exists. */
  readonly readOnly: readonly string[];
  /** Groups that the nodes belong to where not everyone may open them. */
  readonly groups: readonly number[];
  /** Shows the runtime these devices alone, also where no sandbox hides the others. */
  readonly env: Readonly<Record<string, string>>;
  /** Size of /dev/shm, which is the sandbox's own. Absent: 64 MiB. */
  readonly shmBytes?: number;
}

/** No files: with these seatbelt lets the GPU's services through. */
export const APPLE: DeviceNodes = { nodes: [], readOnly: [], groups: [], env: {} };

/** A sandbox that lets these devices through, and no other. Throws Error where one of their files is not there. */
export function withDevices(sandbox: Sandbox, devices: readonly Device[], root = ""): Sandbox {
  const each = devices.flatMap((device) => deviceNodes(device, root) ?? []);
  return each.length === 0 ? sandbox : { ...sandbox, device: each.length === 1 ? each[0]! : together(each, root) };
}

/** NCCL's documentation asks for as much in containers; it is memory only as far as it is used. */
const SHM_BYTES_EACH = 2 ** 30;
/** How NCCL and RCCL find out which devices are linked to which. */
const LINKS = ["/sys/class/pci_bus", "/sys/bus/pci", "/sys/devices"];
/** Ranks meet on the loopback interface, the only one of a sandbox: NCCL takes it only where it is named, and gloo would look up the host's name, which nothing in there knows. */
const MEET = { NCCL_SOCKET_IFNAME: "lo", NCCL_IB_DISABLE: "1", GLOO_SOCKET_IFNAME: "lo" };

/** Several devices for one stack, whose processes exchange data between them: each variable that names devices names all. */
function together(each: readonly DeviceNodes[], root: string): DeviceNodes {
  const all = (what: "nodes" | "readOnly"): string[] => [...new Set(each.flatMap((nodes) => nodes[what]))];
  const named = (name: string): string => [...new Set(each.flatMap(({ env }) => env[name] ?? []))].join(",");
  const names = [...new Set(each.flatMap(({ env }) => Object.keys(env)))];
  const known = names.filter((name) => !name.endsWith("_VISIBLE_DEVICES") || each.every(({ env }) => env[name] !== undefined));
  return {
    nodes: all("nodes"),
    readOnly: [...new Set([...all("readOnly"), ...LINKS.filter((path) => existsSync(`${root}${path}`))])],
    groups: [...new Set(each.flatMap((nodes) => nodes.groups))],
    env: { ...Object.fromEntries(known.map((name) => [name, named(name)])), ...MEET },
    shmBytes: each.length * SHM_BYTES_EACH,
  };
}

/** What points a process of our own at a device: its runtime's variables; {} for the processors, and where a file is missing, which a job on it says itself. */
export function deviceEnvironment(device: Device): Readonly<Record<string, string>> {
  try {
    const { LD_LIBRARY_PATH: driver, ...env } = deviceNodes(device)?.env ?? {};
    return driver === undefined ? env : { ...env, LD_LIBRARY_PATH: prepended(driver, "LD_LIBRARY_PATH") };
  } catch {
    return {};
  }
}

/** The nodes of one device and no other; null for the processors, which need none. Throws Error where a node that it needs is not there. */
export function deviceNodes(device: Device, root = ""): DeviceNodes | null {
  switch (device.kind) {
    case "cpu":
      return null;
    case "apple":
      return APPLE;
    case "nvidia":
      return nvidiaNodes(device, root);
    case "amd":
      return amdNodes(device, root);
  }
}

function nvidiaNodes(device: Device, root: string): DeviceNodes {
  const minor = device.labels["vibeserve.dev/gpu.minor"] ?? onlyOne(`${root}/dev`, /^nvidia(\d+)$/, `the device file of ${device.id}`);
  const uuid = device.labels["vibeserve.dev/gpu.uuid"];
  return withGroups(
    root,
    // A slice is reached through its card's node and a capability, which the driver checks.
    ["/dev/nvidiactl", "/dev/nvidia-uvm", `/dev/nvidia${minor}`],
    ["/dev/nvidia-uvm-tools", "/dev/nvidia-modeset", ...(isSlice(device) ? ["/dev/nvidia-caps"] : [])],
    ["/sys/module/nvidia", "/sys/module/nvidia_uvm", "/usr/local/nvidia"],
    { ...(uuid === undefined ? {} : { CUDA_VISIBLE_DEVICES: uuid }), ...driverLibraries(root) },
  );
}

function amdNodes(device: Device, root: string): DeviceNodes {
  const bus = device.labels["vibeserve.dev/gpu.bus-id"];
  if (bus === undefined) throw new Error(`${device.id} has no bus id, so its device file is not known`);
  const pci = `/sys/bus/pci/devices/${bus}`;
  const render = onlyOne(`${root}${pci}/drm`, /^renderD(\d+)$/, `the render node of ${device.id}`);
  const uuid = device.labels["vibeserve.dev/gpu.uuid"];
  return withGroups(
    root,
    ["/dev/kfd", `/dev/dri/renderD${render}`],
    [],
    // The runtime reads its topology from kfd's folder, and the card's own from the bus.
    ["/sys/class/kfd", "/sys/devices/virtual/kfd", "/sys/class/drm", "/sys/dev/char", "/sys/bus/pci", "/sys/devices", "/opt/rocm"],
    uuid === undefined ? {} : { ROCR_VISIBLE_DEVICES: uuid },
  );
}

function withGroups(
  root: string,
  needed: readonly string[],
  wanted: readonly string[],
  readOnly: readonly string[],
  env: Readonly<Record<string, string>>,
): DeviceNodes {
  for (const node of needed)
    if (!existsSync(`${root}${node}`))
      throw new Error(`${node} is not there: the driver is not loaded, or this container was not given it`);
  const nodes = [...needed, ...wanted.filter((node) => existsSync(`${root}${node}`))];
  const closed = nodes.map((node) => statSync(`${root}${node}`)).filter((info) => (info.mode & 0o006) !== 0o006);
  return {
    nodes,
    readOnly: readOnly.filter((path) => existsSync(`${root}${path}`)),
    groups: [...new Set(closed.map((info) => info.gid))],
    env,
  };
}

function onlyOne(folder: string, pattern: RegExp, what: string): string {
  const found = existsSync(folder) ? readdirSync(folder).flatMap((name) => pattern.exec(name)?.[1] ?? []) : [];
  const [one] = found;
  if (one === undefined || found.length > 1) throw new Error(`${what} is not known: ${found.length} in ${folder}`);
  return one;
}
