import { messageOf } from "../../process/message-of.ts";
import { check, fail, ok, skipped, warn, type Check, type Finding, type Patient } from "./check.ts";

const ANSWER_MS = 10_000;

export const NETWORK: readonly Check[] = [
  check("proxies", "both", ({ env, settings }) => {
    const set = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"].filter((name) => env[name]);
    if (set.length === 0) return ok("none is set");
    const asksModels = settings.anthropic.apiKey !== null || settings.openai.baseUrl !== null;
    if (!asksModels || env["NODE_USE_ENV_PROXY"] === "1") return ok(`${set.join(", ")}; the broker is dialled without`);
    return warn(
      `${set.join(", ")} is set, and Node asks models without it`,
      "NODE_USE_ENV_PROXY=1, or unset it where models are reached directly",
    );
  }),
  check("models", "coordinator", models),
];

/** A provider that answers at all is reached; what it says of the key is what is asked. */
async function models({ online, settings: { anthropic, openai } }: Patient): Promise<Finding> {
  const asked =
    anthropic.apiKey !== null
      ? {
          url: anthropic.baseUrl ?? "https://api.anthropic.com",
          headers: { "x-api-key": anthropic.apiKey, "anthropic-version": "2023-06-01" },
          key: "ANTHROPIC_API_KEY",
        }
      : openai.baseUrl !== null
        ? {
            url: openai.baseUrl.replace(/\/v1\/?$/, ""),
            headers: openai.apiKey === null ? {} : { authorization: `Bearer ${openai.apiKey}` },
            key: "OPENAI_API_KEY",
          }
        : null;
  if (asked === null) return skipped("no model is set up: the playbook needs none");
  if (!online) return skipped("ask for it with --online: it costs a request to the provider, no tokens");
  const url = `${asked.url.replace(/\/$/, "")}/v1/models`;
  try {
    const { status } = await fetch(url, { headers: asked.headers as Record<string, string>, signal: AbortSignal.timeout(ANSWER_MS) });
    if (status === 401 || status === 403)
      return fail(
        `${url} answers ${status}: it does not take the key`,
        `set ${asked.key} to a key that is good, and restart the coordinator`,
      );
    return status >= 500 ? warn(`${url} answers ${status}`, "wait, and ask again") : ok(`${url} answers ${status}`);
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    return fail(`${url}: ${messageOf(cause)}`, `curl -sS ${url}; a proxy or a NetworkPolicy may be in between`);
  }
}
