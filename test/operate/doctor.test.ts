import { chmodSync, chownSync, mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { Patient } from "../../coordinator/src/operate/doctor/check.ts";
import { CHECKS, examine } from "../../coordinator/src/operate/doctor/doctor.ts";
import { scriptedHttp } from "../kit/scripted-http.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { Site } from "../kit/vibeserve-process.ts";
import { tlsServer } from "./certificates.ts";
import { casesOf, holder } from "./doctor-cases.ts";
import { look, openWard, type Ward } from "./doctor-kit.ts";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const dir = tempDir("doctor");
let ward: Ward;
beforeAll(async () => {
  ward = await openWard(dir.path);
});
afterAll(async () => {
  await ward[Symbol.asyncDispose]();
  dir[Symbol.dispose]();
});

const folder = (): string => mkdtempSync(join(dir.path, "other-"));
const settings = (more: Partial<Patient["settings"]>): Partial<Patient> => ({ settings: { ...ward.patient.settings, ...more } });
const CASES = casesOf(
  () => dir.path,
  () => ward,
);

describe("a doctor", () => {
  test("looks at 25 things and more, each by a name of its own, and finds nothing wrong with a healthy coordinator", async () => {
    expect(new Set(CHECKS.map((c) => c.name)).size).toBe(CHECKS.length);
    expect(CHECKS.length).toBeGreaterThanOrEqual(25);
    const found = await examine(ward.patient);
    expect(found.filter((f) => f.status === "fail" || f.status === "warn")).toEqual([]);
    expect(found.filter((f) => f.status === "skipped").map((f) => f.name)).toEqual(
      ["tls-expiry", "tls-names", "tls-authority", "enrolment", "models"].filter((n) =>
        found.some((f) => f.name === n && f.status === "skipped"),
      ),
    );
    for (const f of found) if (f.status === "skipped") expect(f.saw).not.toBe("");
  });

  test("says of each thing that needs a coordinator that none runs, and fails nothing for it", async () => {
    const at: Patient = { ...ward.patient, data: folder(), dial: () => Promise.resolve({ kind: "none", why: "no coordinator runs here" }) };
    const found = await examine(at);
    expect(found.filter((f) => f.status === "fail")).toEqual([]);
    expect(found.find((f) => f.name === "event-logs")).toMatchObject({ status: "skipped", saw: "no coordinator runs here", fix: null });
  });

  test.each(CASES)("%s: %s", async (name, _what, change, status, saw, fix) => {
    const found = await look(name, { ...ward.patient, ...change() });
    expect(found).toMatchObject({ status, saw: expect.stringMatching(saw) as string, fix: expect.stringMatching(fix) as string });
  });

  test("the machine's checks pass on that machine as it was", async () => {
    for (const name of new Set(CASES.map(([check]) => check).filter((n) => n !== "models" && n !== "enrolment")))
      expect([name, await look(name, ward.patient)]).toEqual([name, expect.objectContaining({ status: "ok" })]);
  });

  test("says of a cluster's coordinator that no agent works there, and of each thing that agents need what it said before where one does", async () => {
    const AGENTS = ["compiler", "python", "sandbox", "perf", "device-files", "devices", "huge-pages", "cpu-governor"];
    const nats = { servers: ["tls://nats.example:4222"], keysDir: "/nowhere", replicas: null };
    const alone: Patient = { ...ward.patient, ...settings({ nats }), env: { PATH: folder() }, data: folder() };
    const found = await Promise.all(AGENTS.map((name) => look(name, alone)));
    expect(found.map(({ status, saw }) => `${status}: ${saw}`)).toEqual(
      AGENTS.map(() => "skipped: no agent works here: doctor --node looks at an agent's machine"),
    );
    const fails = { status: "fail", saw: expect.stringMatching(/no C\+\+ compiler/) as string };
    expect(await look("compiler", { ...alone, ...settings({ nats: null }) })).toMatchObject(fails);
    expect(await look("compiler", { ...alone, node: true })).toMatchObject(fails);
    mkdirSync(join(alone.data, "agent"));
    expect(await look("compiler", alone)).toMatchObject(fails);
  });

  test.skipIf(process.getuid?.() !== 0)(
    "takes a volume as fsGroup gives it to a pod, there alone, and no looser one (as root only)",
    async () => {
      const data = folder();
      mkdirSync(join(data, "lost+found"));
      const pod: Patient = { ...ward.patient, data, uid: 10_001, gids: [10_001], env: { KUBERNETES_SERVICE_HOST: "10.96.0.1" } };
      const both = async (at: Patient) => [(await look("data-mode", at)).status, (await look("data-owner", at)).status];
      const given = (mode: number, gid = 10_001): void => {
        for (const path of [join(data, "lost+found"), data]) {
          chownSync(path, 0, gid);
          chmodSync(path, mode);
        }
      };
      given(0o2775);
      expect(await both(pod)).toEqual(["ok", "ok"]);
      expect(await both({ ...pod, env: {} })).toEqual(["fail", "fail"]);
      expect(await both({ ...pod, gids: [4242] })).toEqual(["fail", "fail"]);
      for (const mode of [0o2777, 0o0775, 0o2755]) {
        given(mode);
        expect([mode, await both(pod)]).toEqual([mode, ["fail", "fail"]]);
      }
      given(0o2775);
      chownSync(join(data, "lost+found"), 4242, 10_001);
      expect(await both(pod)).toEqual(["ok", "fail"]);
    },
  );

  test("models: a key that is not taken", async () => {
    const http = await scriptedHttp((_asked, response) => response.writeHead(401).end());
    const baseUrl = `${http.url}/v1`;
    const at = { ...ward.patient, ...settings({ openai: { apiKey: "k", baseUrl, model: "m" } }) };
    expect(await look("models", { ...at, online: true })).toMatchObject({
      status: "fail",
      saw: expect.stringMatching(/answers 401/) as string,
      fix: expect.stringMatching(/OPENAI_API_KEY/) as string,
    });
    expect(await look("models", at)).toMatchObject({ status: "skipped", saw: expect.stringMatching(/--online/) as string });
    await http.close();
  });
});

describe("a certificate", () => {
  const at = (url: string, ca: string | undefined, node = true): Patient => ({
    ...ward.patient,
    node,
    dial: () => Promise.resolve({ kind: "failed", servers: [url], ca, why: "not asked" }),
  });

  test.each<[string, string, object, "fail" | "warn", RegExp]>([
    ["tls-expiry", "127.0.0.1", { fromDays: -30, days: -1 }, "fail", /expired at/],
    ["tls-expiry", "127.0.0.1", { days: 10 }, "warn", /expires in 9 days|expires in 10 days/],
    ["tls-expiry", "127.0.0.1", { fromDays: 2 }, "fail", /valid only from .* clock/],
    ["tls-names", "another.example", {}, "fail", /names DNS:another\.example, not 127\.0\.0\.1/],
  ])("%s: %s %o", async (name, host, days, status, saw) => {
    await using server = await tlsServer(host, days);
    expect(await look(name, at(server.url, server.ca))).toMatchObject({ status, saw: expect.stringMatching(saw) as string });
  });

  test("tls-authority: one of another coordinator; and one that is right in all", async () => {
    await using server = await tlsServer("127.0.0.1");
    await using other = await tlsServer("127.0.0.1");
    expect(await look("tls-authority", at(server.url, other.ca))).toMatchObject({
      status: "fail",
      saw: expect.stringMatching(/not signed by the authority/) as string,
      fix: expect.stringMatching(/--join LINE/) as string,
    });
    for (const name of ["tls-authority", "tls-names", "tls-expiry"])
      expect(await look(name, at(server.url, server.ca))).toMatchObject({ status: "ok" });
  });
});

test("vibeserve doctor ends with 1 where something fails, names it, and says all of it as one object", async () => {
  using place = tempDir("doctor-verb");
  const site = new Site(place.path);
  mkdirSync(site.data);
  chmodSync(site.data, 0o755);
  writeFileSync(join(site.data, "up.lock"), holder);
  const command = site.run("doctor", "--json");
  expect(await command.ended).toBe(1);
  expect(command.err()).toMatch(/failed: .*data-mode/);
  const answer = JSON.parse(command.out()) as { checks: { name: string; status: string; fix: string | null }[]; fail: number };
  expect(answer).toMatchObject({ v: 1, kind: "doctor", node: false });
  expect(answer.checks.filter((c) => c.status === "fail")).toHaveLength(answer.fail);
  expect(answer.checks.find((c) => c.name === "data-mode")).toMatchObject({ status: "fail", fix: `chmod 700 ${site.data}` });
});
