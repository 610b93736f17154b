import { existsSync, readdirSync, statfsSync, statSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { commandLine } from "../../command-line.ts";
import { identityOf, isAlive } from "../../process/identity.ts";
import { readJson } from "../../process/read-json.ts";
import { readRelease, thisRelease, unfinishedFile, whyNot } from "../release-file.ts";
import { packageVersion } from "../../version.ts";
import { check, fail, ok, skipped, warn, type Check, type Finding, type Patient } from "./check.ts";

const mib = (bytes: number): string => `${Math.floor(bytes / 2 ** 20)} MiB`;
const octal = (mode: number): string => (mode & 0o777).toString(8).padStart(4, "0");

const prune = (age: string): string => commandLine("artifacts", ["prune", "--older-than", age]);

/** A check that needs the folder. */
const inFolder = (name: string, on: Check["on"], look: (at: Patient) => Finding): Check =>
  check(name, on, (at) => (existsSync(at.data) ? look(at) : skipped(`there is no folder ${at.data} yet`)));

/**
 * As a kubelet gives a volume to a pod of another user (`fsGroup`): root's, of a group of ours that may write, and by setgid so is all that is made in it. Only in a
 * pod, where nobody else is.
 */
function givenByGroup({ env, gids }: Patient, path: string): boolean {
  const { uid, gid, mode } = statSync(path);
  return env["KUBERNETES_SERVICE_HOST"] !== undefined && uid === 0 && gids.includes(gid) && (mode & 0o2072) === 0o2070;
}

export const DATA_FOLDER: readonly Check[] = [
  inFolder("data-mode", "both", (at) => {
    const { data } = at;
    const { mode } = statSync(data);
    if (givenByGroup(at, data)) return ok(`${data} is a volume of this pod, ${octal(mode)}: its group alone sees it`);
    return (mode & 0o077) === 0
      ? ok(`${data} is ${octal(mode)}`)
      : fail(`${data} is ${octal(mode)}: others on this machine can look into it`, `chmod 700 ${data}`);
  }),
  inFolder("data-owner", "both", (at) => {
    const { data, uid } = at;
    const others = [data, ...readdirSync(data).map((name) => join(data, name))].filter((path) => statSync(path).uid !== uid);
    const foreign = others.filter((path) => !givenByGroup(at, path));
    if (foreign.length === 0)
      return ok(`all belongs to uid ${uid}${others.length === 0 ? "" : `, or is given to it by fsGroup: ${others.join(", ")}`}`);
    return fail(
      `${foreign.slice(0, 3).join(", ")} belong to uid ${statSync(foreign[0] ?? data).uid}, this is uid ${uid}`,
      `chown -R ${uid} ${data}`,
    );
  }),
  inFolder("key-files", "both", ({ data, node }) => {
    const folders = node ? [data] : [join(data, "nats/keys"), join(data, "nats/tls")];
    const keys = folders
      .filter(existsSync)
      .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
      .filter((path) => /\.(nk|pem|json)$/.test(path));
    const open = keys.filter((path) => (statSync(path).mode & 0o077) !== 0);
    if (keys.length === 0) return skipped("there are no keys yet");
    return open.length === 0
      ? ok(`${keys.length} files, none open to others`)
      : fail(
          `${open.join(", ")}: ${octal(statSync(open[0] ?? data).mode)}`,
          `chmod 600 ${open.join(" ")}; whoever read it has it: docs/operations.md#leaked-keys`,
        );
  }),
  inFolder("disk-space", "both", ({ data, disk }) => {
    const { bavail, bsize } = statfsSync(data);
    const free = bavail * bsize;
    const say = `${mib(free)} free on the disk of ${data}`;
    if (free < disk.failBytes)
      return fail(`${say}, ${mib(disk.failBytes)} are needed: everything waits`, `${prune("7d")}, or a larger disk`);
    return free < disk.warnBytes ? warn(`${say}, under ${mib(disk.warnBytes)}`, `${prune("30d")}, or a larger disk`) : ok(say);
  }),
  inFolder("locks", "both", ({ data, node }) => {
    const names = node ? ["agent.lock"] : ["up.lock", "start.lock"];
    const held = names.filter((name) => existsSync(join(data, name))).map((name) => ({ name, holder: holderOf(join(data, name)) }));
    const stale = held.filter((h) => h.holder === null || !alive(h.holder));
    if (stale.length === 0) return ok(held.map((h) => `${h.name}: pid ${h.holder?.pid ?? 0} runs`).join(", ") || "no lock is held");
    return warn(
      `${stale.map((h) => `${h.name} names pid ${h.holder?.pid ?? "?"}, which does not run here`).join("; ")}: it was killed, or runs in another container`,
      "start it again: it takes the lock over by itself",
    );
  }),
  inFolder("broker-process", "coordinator", ({ data }) => {
    const broker = holderOf(join(data, "nats/broker.json"));
    if (broker === null) return skipped("no broker was left here");
    const coordinator = holderOf(join(data, "up.lock"));
    const owned = coordinator !== null && alive(coordinator);
    if (!alive(broker))
      return owned
        ? fail(`the coordinator runs, its broker, pid ${broker.pid}, does not`, `tail ${join(data, "logs/nats.log")}`)
        : warn(`broker.json names pid ${broker.pid}, which does not run here`, `${commandLine("up")} puts it right`);
    return owned
      ? ok(`pid ${broker.pid}`)
      : warn(
          `nats-server, pid ${broker.pid}, runs without a coordinator`,
          `${commandLine("up")} takes it over; or end it: kill ${broker.pid}`,
        );
  }),
  inFolder("restored", "coordinator", ({ data }) =>
    existsSync(unfinishedFile(data))
      ? fail("a restore did not end: what is here is a part", `rm -r ${data}; ${commandLine("restore", ["FILE", "--data", data])}`)
      : ok("nothing is half restored"),
  ),
  inFolder("release", "coordinator", ({ data }) => {
    const own = thisRelease(packageVersion());
    const wrote = readRelease(data);
    const why = wrote && whyNot(wrote, own);
    if (why) return fail(why, `install release ${wrote.version} or later`);
    return ok(
      wrote ? `written by ${wrote.version}, protocol ${wrote.protocol}; this is ${own.version}` : "written by no release that says so",
    );
  }),
];

const Holder = z.looseObject({ pid: z.int(), start: z.union([z.string(), z.number()]) });

const holderOf = (path: string): { pid: number; start: string | number } | null => Holder.safeParse(readJson(path)).data ?? null;

/** An agent writes ticks since boot, a coordinator boot and ticks. */
function alive({ pid, start }: { pid: number; start: string | number }): boolean {
  return typeof start === "string" ? isAlive({ pid, start }) : (identityOf(pid)?.start.endsWith(`/${start}`) ?? false);
}
