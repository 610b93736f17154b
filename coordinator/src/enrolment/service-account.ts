import { createRemoteJWKSet, customFetch, jwtVerify, type JWTVerifyGetKey } from "jose";
import { z } from "zod";
import type { Settings } from "../config.ts";
import { ANSWER_MS, apiServer, isUnreached } from "../kubernetes/api-server.ts";
import { messageOf } from "../process/message-of.ts";

type ServiceAccounts = NonNullable<Settings["kubernetes"]>;

/** An API server signs with RS256 or ES256; "none" and shared secrets are never taken. */
const ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"];

const Discovery = z.object({ issuer: z.string(), jwks_uri: z.url() });
/** A token that is bound to a pod ends with it; the old kind, which lives in a Secret for ever, has no `exp` and no pod. */
const Claims = z.object({ sub: z.string(), "kubernetes.io": z.object({ pod: z.object({ name: z.string(), uid: z.string() }) }) });

/**
 * Returns a check of bound service account tokens: resolves with "namespace:name", or with why a token is not taken. The signature is checked against the API
 * server's own keys, which are read once and again when an unknown one appears. A pod that was deleted keeps its token's word until that expires, at most an hour
 * by default: only the API server's TokenReview knows better. Rejects where the API server is not reached, or answers 429 or 5xx: that says nothing of the token.
 */
export function serviceAccountCheck(settings: ServiceAccounts): (jwt: string) => Promise<{ account: string } | { why: string }> {
  let keys: Promise<JWTVerifyGetKey> | null = null;
  return async (jwt) => {
    try {
      keys ??= discover(settings);
      keys.catch(() => (keys = null));
      const { payload } = await jwtVerify(jwt, await keys, {
        issuer: settings.issuer,
        audience: settings.audience,
        algorithms: ALGORITHMS,
        requiredClaims: ["exp", "iat", "sub"],
        clockTolerance: "30s",
      });
      const claims = Claims.safeParse(payload);
      if (!claims.success) return { why: "its service account token is not bound to a pod" };
      const [, account = null] = /^system:serviceaccount:([^:]+:[^:]+)$/.exec(claims.data.sub) ?? [];
      if (account !== null && settings.accounts.includes(account)) return { account };
      return { why: `${claims.data.sub} may not bring agents in; these may: ${settings.accounts.join(", ")}` };
    } catch (error) {
      if (isUnreached(error) || error instanceof UnansweredError)
        throw new Error(`no API server at ${settings.issuer}: ${messageOf(error)}`, { cause: error });
      return { why: `its service account token is not good: ${messageOf(error)}` };
    }
  };
}

/** It is there, and can't say anything now: a proxy before one that is away, one that begins, or has too much to do. */
class UnansweredError extends Error {}

async function discover(settings: ServiceAccounts): Promise<JWTVerifyGetKey> {
  const ask = apiServer(settings);
  const get = async (url: string): Promise<Response> => {
    const answer = await ask(url);
    if (answer.status === 429 || answer.status >= 500) throw new UnansweredError(`${url} answered ${answer.status}`);
    return answer;
  };
  const answer = await get(new URL(".well-known/openid-configuration", settings.issuer.replace(/\/?$/, "/")).href);
  if (!answer.ok) throw new Error(`discovery at ${settings.issuer} answered ${answer.status}`);
  const { issuer, jwks_uri } = Discovery.parse(await answer.json());
  if (issuer !== settings.issuer) throw new Error(`discovery at ${settings.issuer} speaks for ${issuer}`);
  return createRemoteJWKSet(new URL(jwks_uri), { [customFetch]: (url) => get(url), timeoutDuration: ANSWER_MS });
}
