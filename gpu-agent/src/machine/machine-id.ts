import { execFileSync } from "node:child_process";
import { hostname } from "node:os";
import { sha256 } from "@vibeserve/shared";
import { readText } from "../process/read-text.ts";

let known: string | undefined;

/**
 * Digest that is the same for every agent on this machine, whoever runs it and wherever its data lies: of the machine's own id, else of this boot's id and the
 * host's name. Machines that were cloned with their id count as one, which costs time and never a measurement. Looked up once: every job on an
 * accelerator asks, and on a Mac a program answers.
 */
export const machineDigest = (): string => (known ??= lookUp());

function lookUp(): string {
  const id = process.platform === "darwin" ? platformUuid() : read("/etc/machine-id");
  return sha256(id ?? `${read("/proc/sys/kernel/random/boot_id") ?? ""} ${hostname()}`);
}

const read = (path: string): string | null => readText(path)?.trim() || null;

function platformUuid(): string | null {
  try {
    const text = execFileSync("/usr/sbin/ioreg", ["-rd1", "-c", "IOPlatformExpertDevice"], { encoding: "utf8", timeout: 5_000 });
    return /"IOPlatformUUID" = "([^"]+)"/.exec(text)?.[1] ?? null;
  } catch {
    return null;
  }
}
