import { monitorEventLoopDelay } from "node:perf_hooks";
import { z } from "zod";

/** One thing that a probe looks at. */
export interface Check {
  name: string;
  /** What is wrong and what to do about it, on one line, for people; null: nothing is. */
  look: () => string | null | Promise<string | null>;
}

/** A path's answer is a probe's, or a text of this type. */
export type Page = { checks: () => readonly Check[] } | { type: string; text: () => Promise<string> };

/** Kubernetes waits 1 s for an answer unless it is told otherwise: a check that has none by then has failed. */
const LOOK_MS = 800;

/**
 * The answer of a probe, in the form of kube-apiserver's: "ok", or with `verbose`, and whenever something failed, a line a check, `[+]name ok` or
 * `[-]name failed: why`. Never rejects: a check that throws or does not answer in time has failed.
 */
export async function probeAnswer(probe: string, checks: readonly Check[], verbose: boolean): Promise<{ status: 200 | 503; text: string }> {
  const whys = await Promise.all(checks.map(lookAt));
  const failed = whys.some((why) => why !== null);
  if (!failed && !verbose) return { status: 200, text: "ok\n" };
  const lines = checks.map(({ name }, i) => (whys[i] === null ? `[+]${name} ok` : `[-]${name} failed: ${oneLine(whys[i] ?? "")}`));
  return { status: failed ? 503 : 200, text: `${lines.join("\n")}\n${probe} check ${failed ? "failed" : "passed"}\n` };
}

/** What a listener of fixed paths, which answers GET and HEAD, says to a request. Never rejects. */
export async function pageAnswer(
  { method, url }: { method?: string | undefined; url?: string | undefined },
  pages: ReadonlyMap<string, Page>,
): Promise<{ status: number; type: string; text: string }> {
  const type = "text/plain; charset=utf-8";
  // "//" is no address: what can't be read is not found, and ends nothing.
  const { pathname, searchParams } = URL.parse(url ?? "/", "http://host") ?? { pathname: "", searchParams: new URLSearchParams() };
  const page = pages.get(pathname);
  if (method !== "GET" && method !== "HEAD") return { status: 405, type, text: "only GET and HEAD\n" };
  if (!page) return { status: 404, type, text: `${[...pages.keys()].join("\n")}\n` };
  try {
    if (!("checks" in page)) return { status: 200, type: page.type, text: await page.text() };
    return { ...(await probeAnswer(pathname.slice(1), page.checks(), searchParams.has("verbose"))), type };
  } catch (error) {
    return { status: 500, type, text: `${error instanceof Error ? error.message : String(error)}\n` };
  }
}

async function lookAt({ look }: Check): Promise<string | null> {
  const late = Promise.withResolvers<string>();
  const timer = setTimeout(() => late.resolve(`no answer within ${LOOK_MS} ms`), LOOK_MS);
  try {
    return await Promise.race([look(), late.promise]);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    clearTimeout(timer);
  }
}

const oneLine = (text: string): string => text.replace(/\s+/g, " ").slice(0, 500);

/** Replaying ten thousand events and a collection of a large heap hold up the loop for tenths of a second; for this long only what is stuck does. */
const STUCK_MS = 5_000;

/** The check of a process that answers, but rarely. Costs two wake-ups a second from here on. */
export function eventLoopCheck(): Check {
  const delay = monitorEventLoopDelay({ resolution: 500 });
  delay.enable();
  const look = () => {
    const worstMs = delay.max / 1e6;
    delay.reset();
    return worstMs > STUCK_MS
      ? `it stood still for ${(worstMs / 1000).toFixed(1)} s since the last look: it is short of CPU, or stuck`
      : null;
  };
  return { name: "event-loop", look };
}

/** "HOST:PORT" of a listener, an IPv6 address in brackets; port 0: any free one. */
export const ListenAddress = z.string().transform((text, context) => {
  const [, host, port] = /^\[?([A-Za-z0-9._-]+|[0-9a-fA-F:]+)\]?:(\d{1,5})$/.exec(text) ?? [];
  if (host !== undefined && Number(port) <= 65535) return { host, port: Number(port) };
  context.addIssue(`${JSON.stringify(text)} is not HOST:PORT, such as 127.0.0.1:9464 or [::]:9464`);
  return z.NEVER;
});
export type ListenAddress = z.infer<typeof ListenAddress>;
