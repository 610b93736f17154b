import { exportJWK, generateKeyPair, SignJWT, UnsecuredJWT, type CryptoKey, type JWTPayload } from "jose";
import { afterAll, expect, test } from "vitest";
import { serviceAccountCheck } from "../../coordinator/src/enrolment/service-account.ts";
import { TcpProxy } from "../faults/tcp-proxy.ts";
import { apiServer, refusal } from "../kit/api-server.ts";
import { askToJoin, dialJoiner, joinLine, lineOf, newcomer } from "../kit/joiner.ts";
import { startCoordinator } from "../kit/real-coordinator.ts";
import { tempDir } from "../kit/temp-dir.ts";

/** An API server's discovery and keys, as `/.well-known/openid-configuration` and `/openid/v1/jwks` are served by it. */
const [one, two] = await Promise.all([generateKeyPair("RS256"), generateKeyPair("RS256")]);
const asked: string[] = [];
const published = [{ ...(await exportJWK(one.publicKey)), kid: "one", use: "sig", alg: "RS256" }];
const server = await apiServer(({ path }) => {
  asked.push(path);
  const discovery = { issuer, jwks_uri: `${issuer}/openid/v1/jwks`, response_types_supported: ["id_token"] };
  return [200, path === "/.well-known/openid-configuration" ? discovery : { keys: published }];
});
const issuer = server.url;
const settings = { issuer, audience: "vibeserve", accounts: ["fleet:gpu-agent"], caFile: null, tokenFile: null };
afterAll(() => server[Symbol.asyncDispose]());

const pod = {
  "kubernetes.io": { namespace: "fleet", pod: { name: "gpu-agent-x7", uid: "9d2f" }, serviceaccount: { name: "gpu-agent", uid: "11" } },
};
interface Changes {
  claims?: JWTPayload;
  sub?: string;
  aud?: string;
  iss?: string;
  exp?: string | null;
  key?: CryptoKey;
  kid?: string;
}
async function token({
  claims = pod,
  sub = "system:serviceaccount:fleet:gpu-agent",
  aud = "vibeserve",
  iss = issuer,
  exp = "1h",
  ...k
}: Changes = {}) {
  const jwt = new SignJWT(claims)
    .setProtectedHeader({ alg: "RS256", kid: k.kid ?? "one" })
    .setIssuer(iss)
    .setAudience(aud)
    .setSubject(sub);
  jwt.setIssuedAt(exp?.startsWith("-") ? Math.floor(Date.now() / 1000) - 7200 : undefined);
  return (exp === null ? jwt : jwt.setExpirationTime(exp)).sign(k.key ?? one.privateKey);
}

test("a bound token of an allowed account, signed by the API server for our audience, is taken", async () => {
  expect(await serviceAccountCheck(settings)(await token())).toEqual({ account: "fleet:gpu-agent" });
});

test.each<[string, Changes, RegExp]>([
  ["made for another audience", { aud: "https://kubernetes.default.svc" }, /"aud"/],
  ["of another issuer", { iss: "https://elsewhere.example" }, /"iss"/],
  [
    "of another account",
    { sub: "system:serviceaccount:fleet:default" },
    /fleet:default may not bring agents in; these may: fleet:gpu-agent/,
  ],
  ["of a user", { sub: "admin" }, /admin may not/],
  ["that has expired", { exp: "-1h" }, /"exp"/],
  ["without an end", { exp: null }, /"exp"/],
  ["not bound to a pod", { claims: {} }, /not bound to a pod/],
  ["signed by another key under a known name", { key: two.privateKey }, /signature/],
  ["signed by an unknown key", { key: two.privateKey, kid: "two" }, /no applicable key/],
])("a token %s is refused, in words", async (_what, changes, words) => {
  expect(await serviceAccountCheck(settings)(await token(changes))).toEqual({ why: expect.stringMatching(words) as string });
});

test("an unsigned token and one that is none are refused", async () => {
  const check = serviceAccountCheck(settings);
  const unsigned = new UnsecuredJWT(pod).setIssuer(issuer).setAudience("vibeserve").setSubject("system:serviceaccount:fleet:gpu-agent");
  const jwt = unsigned.setIssuedAt().setExpirationTime("1h").encode();
  expect(await check(jwt)).toEqual({ why: expect.stringMatching(/not good/) as string });
  expect(await check("what?")).toEqual({ why: expect.stringMatching(/not good/) as string });
});

test("keys are read once for many tokens", async () => {
  const check = serviceAccountCheck(settings);
  asked.length = 0;
  for (let i = 0; i < 5; i++) expect(await check(await token())).toHaveProperty("account");
  expect(asked).toEqual(["/.well-known/openid-configuration", "/openid/v1/jwks"]);
});

test("an API server that can't be reached speaks against no token, and is asked again for the next", async () => {
  await using wire = await TcpProxy.open(issuer);
  const own = wire.url.replace("nats:", "http:");
  const check = serviceAccountCheck({ ...settings, issuer: own });
  wire.refuse(1);
  await expect(check(await token())).rejects.toThrow(/^no API server at http:\S+: socket hang up$/);
  expect(await check(await token())).toEqual({ why: expect.stringMatching(/speaks for/) as string });
  const plain = serviceAccountCheck({ ...settings, issuer: "http://kubernetes.example" });
  expect(await plain(await token())).toEqual({ why: expect.stringMatching(/not HTTPS/) as string });
});

test.each(["/.well-known/openid-configuration", "/openid/v1/jwks"])("nor does one that can't answer %s now", async (where) => {
  let code = 503;
  await using busy = await apiServer(({ path }) =>
    path === where && code !== 200
      ? refusal(code, "ServiceUnavailable", "the server is currently unable to handle the request")
      : [200, { issuer: busy.url, jwks_uri: `${busy.url}/openid/v1/jwks`, keys: published }],
  );
  const check = serviceAccountCheck({ ...settings, issuer: busy.url });
  const jwt = await token({ iss: busy.url });
  await expect(check(jwt)).rejects.toThrow(/^no API server at http:\S+: \S+ answered 503$/);
  code = 429;
  await expect(check(jwt)).rejects.toThrow(/answered 429$/);
  code = 403;
  expect(await check(jwt)).toEqual({ why: expect.any(String) as string });
  code = 200;
  expect(await check(jwt)).toEqual({ account: "fleet:gpu-agent" });
});

test("a pod whose token nobody can look at is not refused for good: it gets no answer, and the log says why", async () => {
  using dir = tempDir("pods");
  await using real = await startCoordinator(dir.path, { settings: { kubernetes: { ...settings, issuer: "http://127.0.0.1:9" } } });
  await using client = await real.client();
  const nc = await dialJoiner(lineOf((await joinLine(client, { kubernetes: true })).line));
  const failed = real.reported("enrolment.failed");
  const answered = askToJoin(nc, newcomer("early"), { kind: "service-account", jwt: await token() });
  answered.catch(() => undefined);
  // One that is in, and is started again: its key is enough.
  const member = newcomer("member");
  await real.coordinator.broker.enroll({ agentId: "member", publicKey: member.info.publicKey, pools: ["local"], enrolledAt: Date.now() });
  expect(await askToJoin(nc, member, { kind: "service-account", jwt: await token() })).toMatchObject({ kind: "join.approved" });
  expect(await failed).toMatchObject({ why: expect.stringMatching(/no API server at http:\/\/127\.0\.0\.1:9: .*ECONNREFUSED/) as string });
  await nc.close();
  await expect(answered).rejects.toThrow();
});

test("a pod joins with its token and a line that holds none; another account is told which may", async () => {
  using dir = tempDir("pods");
  await using real = await startCoordinator(dir.path, { settings: { kubernetes: settings } });
  await using client = await real.client();
  const { line, expiresAt } = await joinLine(client, { kubernetes: true });
  expect([lineOf(line).token, expiresAt]).toEqual([null, null]);
  const nc = await dialJoiner(lineOf(line));
  const join = async (agentId: string, changes: Changes) =>
    askToJoin(nc, newcomer(agentId), { kind: "service-account", jwt: await token(changes) });
  expect(await join("gpu-agent-x7", {})).toMatchObject({ kind: "join.approved" });
  expect(await join("other", { sub: "system:serviceaccount:fleet:other" })).toMatchObject({
    kind: "join.refused",
    reason: expect.stringMatching(/may not bring agents in/) as string,
  });
  expect(await join("late", { exp: "-1h" })).toMatchObject({ kind: "join.refused" });
  await nc.close();
  expect(real.reports.filter(({ event }) => event === "enrolment.refused").map(({ facts }) => [facts["agentId"], facts["reason"]])).toEqual(
    [
      ["other", expect.stringMatching(/may not bring agents in/)],
      ["late", expect.stringMatching(/its service account token is not good: .*"exp"/)],
    ],
  );
});
