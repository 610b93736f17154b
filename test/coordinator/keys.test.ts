import { X509Certificate } from "node:crypto";
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { decode } from "@nats-io/jwt";
import { ClientContext, parseJoinLine } from "@vibeserve/shared";
import { expect, test } from "vitest";
import { keySecrets } from "../../coordinator/src/broker/cluster/key-secrets.ts";
import { makeKeys } from "../../coordinator/src/broker/cluster/key-folders.ts";
import { readClusterKeys } from "../../coordinator/src/broker/cluster/keys.ts";
import { apiServer, refusal, type ApiAnswer } from "../kit/api-server.ts";
import { site } from "../kit/sites.ts";
import { tempDir } from "../kit/temp-dir.ts";

const FILES = {
  server: ["auth.conf", "ca.crt", "tls.crt", "tls.key"],
  coordinator: ["keys.json"],
  join: ["line"],
  client: ["client.json"],
};
const OPTIONS = { hosts: ["nats-0.nats", "10.0.0.7:4333"], advertise: ["nats.example:443"], resolverDir: "/data/resolver" };

test("keys writes what servers, coordinator, agents and people need, for their eyes alone, and never writes it again", async () => {
  using s = site();
  const out = join(s.at.dir, "keys");
  const run = async (...args: string[]) => {
    const command = s.at.run("keys", "--out", out, "--json", ...args);
    expect(await command.ended, command.err()).toBe(0);
    return JSON.parse(command.out()) as { servers: string[]; folders: { folder: string; made: boolean }[] };
  };
  const first = await run("--hosts", "nats-0.nats,nats-1.nats", "--advertise", "nats.example:443");
  expect(first.servers).toEqual(["tls://nats.example:443"]);
  expect(first.folders.map(({ made }) => made)).toEqual([true, true, true, true]);
  const all = () =>
    Object.entries(FILES).flatMap(([folder, names]) => {
      expect(readdirSync(join(out, folder)).sort()).toEqual(names);
      expect(statSync(join(out, folder)).mode & 0o777).toBe(0o700);
      return names.map((name) => {
        expect(statSync(join(out, folder, name)).mode & 0o777).toBe(0o600);
        return readFileSync(join(out, folder, name), "utf8");
      });
    });
  const before = all();
  const leaf = new X509Certificate(readFileSync(join(out, "server", "tls.crt")));
  for (const name of ["nats-0.nats", "nats-1.nats", "nats.example", "localhost"]) expect(leaf.checkHost(name)).toBe(name);
  expect(leaf.verify(new X509Certificate(readFileSync(join(out, "server", "ca.crt"))).publicKey)).toBe(true);
  // Routes: a server is also a client of its peers.
  expect(leaf.keyUsage).toEqual(expect.arrayContaining(["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]));
  expect((await run("--hosts", "elsewhere")).folders.map(({ made }) => made)).toEqual([false, false, false, false]);
  expect(all()).toEqual(before);
  // The certificate for other names: what is missing is made of what is there.
  rmSync(join(out, "server"), { recursive: true });
  await run("--hosts", "elsewhere");
  const renewed = new X509Certificate(readFileSync(join(out, "server", "tls.crt")));
  expect(renewed.checkHost("elsewhere")).toBe("elsewhere");
  expect(readFileSync(join(out, "server", "ca.crt"), "utf8")).toBe(before[FILES.server.indexOf("ca.crt")]);
});

test("what is derived fits its root: the line and the context hold claims that its operator's accounts know, and no seed of another role", async () => {
  using s = site();
  const out = join(s.at.dir, "keys");
  expect(await s.at.run("keys", "--out", out, "--hosts", "a.example,b.example").ended).toBe(0);
  const keys = readClusterKeys(join(out, "coordinator"));
  const line = parseJoinLine(readFileSync(join(out, "join", "line"), "utf8"));
  expect(line).toMatchObject({ token: null, joiner: keys.seeds.joiner, servers: ["tls://a.example:4222", "tls://b.example:4222"] });
  expect(decode<{ issuer_account: string }>(line?.claim ?? "").nats.issuer_account).toBe(keys.accounts.joiner);
  const client = ClientContext.parse(JSON.parse(readFileSync(join(out, "client", "client.json"), "utf8")));
  expect(decode<{ issuer_account: string }>(client.claim ?? "").nats.issuer_account).toBe(keys.accounts.client);
  for (const folder of ["server", "join", "client"])
    for (const name of readdirSync(join(out, folder))) {
      const text = readFileSync(join(out, folder, name), "utf8");
      for (const secret of [keys.operator, keys.signer, keys.seeds.coordinator, keys.seeds.system]) expect(text).not.toContain(secret);
    }
  // Derived parts without their root are not overwritten with others.
  rmSync(join(out, "coordinator"), { recursive: true });
  const orphaned = s.at.run("keys", "--out", out);
  expect(await orphaned.ended).toBe(2);
  expect(orphaned.err()).toMatch(/server is there and .*coordinator is not: they belong together/);
  const nowhere = s.at.run("keys");
  expect(await nowhere.ended).toBe(2);
  expect(nowhere.err()).toMatch(/--out DIR, or --kubernetes-secrets PREFIX/);
  const outside = s.at.run("keys", "--kubernetes-secrets", "vs");
  expect(await outside.ended).toBe(2);
  expect(outside.err()).toMatch(/this is not a pod: set VIBESERVE_KUBERNETES_API/);
});

interface Secret {
  metadata: { name: string };
  data: Record<string, string>;
}

/** Secrets of a namespace by name. */
async function secretServer(refuse: (method: string) => ApiAnswer | null = () => null) {
  const secrets = new Map<string, Secret>();
  const seen: string[] = [];
  const server = await apiServer(({ method, path, headers, body }) => {
    seen.push(`${method} ${path} ${headers.authorization ?? ""}`);
    const no = refuse(method);
    if (no) return no;
    if (method === "GET") {
      const name = /^\/api\/v1\/namespaces\/serving\/secrets\/([a-z0-9-]+)$/.exec(path)?.[1] ?? "";
      const found = secrets.get(name);
      return found ? [200, { kind: "Secret", apiVersion: "v1", ...found }] : refusal(404, "NotFound", `secrets "${name}" not found`);
    }
    const secret = body as Secret;
    const { name } = secret.metadata;
    if (secrets.has(name)) return refusal(409, "AlreadyExists", `secrets "${name}" already exists`);
    secrets.set(name, secret);
    return [201, secret];
  });
  return { ...server, secrets, seen };
}

test("as Secrets by the pod's service account: four are made, again none, and the one that is missing is made of the others", async () => {
  using dir = tempDir("keys");
  await using api = await secretServer();
  writeFileSync(join(dir.path, "token"), "pods-own\n");
  const store = () => keySecrets({ url: api.url, namespace: "serving", prefix: "vs", caFile: null, tokenFile: join(dir.path, "token") });
  expect((await makeKeys(store(), OPTIONS)).made).toEqual(["coordinator", "server", "client", "join"]);
  expect([...api.secrets.keys()].sort()).toEqual(["vs-client", "vs-coordinator", "vs-join", "vs-server"]);
  for (const [folder, names] of Object.entries(FILES))
    expect(Object.keys(api.secrets.get(`vs-${folder}`)?.data ?? {}).sort()).toEqual(names);
  for (const request of api.seen) expect(request).toMatch(/ Bearer pods-own$/);
  const before = JSON.stringify([...api.secrets]);
  expect((await makeKeys(store(), OPTIONS)).made).toEqual([]);
  expect(JSON.stringify([...api.secrets])).toBe(before);
  const kept = api.secrets.get("vs-server")?.data["ca.crt"];
  api.secrets.delete("vs-server");
  expect((await makeKeys(store(), OPTIONS)).made).toEqual(["server"]);
  expect(api.secrets.get("vs-server")?.data["ca.crt"]).toBe(kept);
});

test.each([
  [403, "Forbidden", "GET", "bad-input", /answered 403: no[^]*a Role with verbs get and create on secrets in namespace serving/],
  [401, "Unauthorized", "GET", "bad-input", /answered 401: no[^]*token of this pod's service account is not accepted/],
  [
    404,
    "NotFound",
    "POST",
    "not-found",
    /create Secret serving\/vs-coordinator: the API server answered 404: no[^]*is there a namespace serving\?/,
  ],
  [409, "AlreadyExists", "POST", "conflict", /answered 409: no[^]*another run has made it meanwhile: run this one again/],
])("what an API server refuses with %i is told with what to do", async (code, reason, method, kind, words) => {
  await using api = await secretServer((asked) => (asked === method ? refusal(code, reason, "no") : null));
  const store = keySecrets({ url: api.url, namespace: "serving", prefix: "vs", caFile: null, tokenFile: null });
  await expect(makeKeys(store, OPTIONS)).rejects.toMatchObject({ code: kind, message: expect.stringMatching(words) as string });
  expect(api.secrets.size).toBe(0);
});
