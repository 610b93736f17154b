/** Why a request may not pass, or where it goes. */
export type Routed = { kind: "refused"; reason: string } | { kind: "routed"; path: string; paid: boolean; model: string | null };

/** Credentials that some clients put into the address. */
const KEY_PARAMETERS = ["key", "access_token", "api_key"];

/**
 * The one place that decides what passes the proxy: a request for this very proxy (origin form, its own Host), whose path is spelt plainly and is one
 * of the recipe's under the base URL's path. Credentials in the query are taken out.
 */
export function routeOf(
  request: { method: string; url: string; host: string },
  base: URL,
  hosts: readonly string[],
  api: { paid: readonly string[]; free: readonly string[] },
): Routed {
  const refused = (reason: string): Routed => ({ kind: "refused", reason });
  const { method, url, host } = request;
  if (!hosts.includes(host)) return refused(`${host}: only the model provider can be reached from here`);
  // "//host", "\" and escapes could be read differently by whoever comes next.
  const [, path = "", query = ""] = /^(\/[^?#]*)(?:\?([^#]*))?$/.exec(url) ?? [];
  if (!/^(\/[A-Za-z0-9_.:@~-]+)+$/.test(path) || path.split("/").some((part) => /^\.+$/.test(part)))
    return refused(`${method} ${url}: not allowed here`);
  const prefix = base.pathname.replace(/\/$/, "");
  const within = path.startsWith(`${prefix}/`) ? path.slice(prefix.length) : null;
  for (const paid of [true, false])
    for (const route of paid ? api.paid : api.free) {
      const [, wanted, pattern = ""] = /^(\S+) (\S+)$/.exec(route) ?? [];
      const parts = pattern.split("{model}").map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
      const match = within === null || wanted !== method ? null : new RegExp(`^${parts.join("([^/:]+)")}$`).exec(within);
      if (match) return { kind: "routed", path: path + withoutKeys(query), paid, model: match[1] ?? null };
    }
  return refused(`${method} ${path}: not among what an agent may ask of the provider`);
}

function withoutKeys(query: string): string {
  const parameters = new URLSearchParams(query);
  for (const name of KEY_PARAMETERS) parameters.delete(name);
  return parameters.size === 0 ? "" : `?${parameters.toString()}`;
}
