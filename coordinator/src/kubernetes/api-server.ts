import { readFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { isLoopback, parseJson } from "@vibeserve/shared";
import { z } from "zod";

export interface ApiServerAccess {
  /** PEM file of its authority; null: the system's authorities. */
  caFile: string | null;
  /** Sent as bearer. Read each time, since it is replaced while it is used. */
  tokenFile: string | null;
}

/** The API server is in the same cluster; what is asked of it is small. */
export const ANSWER_MS = 5_000;
const MAX_ANSWER_BYTES = 256 * 1024;

/**
 * Requests with the cluster's authority, which Node's own fetch can't be given. body: sent as JSON, by POST where no method is named; absent: GET. Plain HTTP only
 * to this machine. Rejects after 5 s, and on an answer of more than maxBytes; every status is an answer.
 */
export function apiServer(
  { caFile, tokenFile }: ApiServerAccess,
  maxBytes = MAX_ANSWER_BYTES,
): (url: string, body?: unknown, method?: string) => Promise<Response> {
  return async (url, body, method = body === undefined ? "GET" : "POST") => {
    const { protocol, hostname } = new URL(url);
    if (protocol !== "https:" && !isLoopback(hostname)) throw new Error(`${url} is not HTTPS: keys read in the clear prove nothing`);
    const request = protocol === "https:" ? httpsRequest : httpRequest;
    const sent = body === undefined ? undefined : JSON.stringify(body);
    const options = {
      method,
      signal: AbortSignal.timeout(ANSWER_MS),
      headers: {
        ...(tokenFile === null ? {} : { authorization: `Bearer ${readFileSync(tokenFile, "utf8").trim()}` }),
        ...(sent === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(caFile === null ? {} : { ca: readFileSync(caFile) }),
    };
    return new Promise((resolve, reject) => {
      const asked = request(url, options, (answer) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        answer.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          if ((bytes += chunk.length) > maxBytes) asked.destroy(new Error(`${url} answered more than ${maxBytes} bytes`));
        });
        answer.on("end", () => resolve(new Response(Buffer.concat(chunks), { status: answer.statusCode ?? 500 })));
        answer.on("error", reject);
      });
      asked.on("error", reject);
      asked.end(sent);
    });
  };
}

/** What the network says while it lets nobody through; all else (a certificate, a file that is not there) stays as it is. */
const REFUSED = ["ECONNREFUSED", "ECONNRESET", "EHOSTUNREACH", "ENETUNREACH", "ETIMEDOUT", "EAI_AGAIN", "ENOTFOUND", "ABORT_ERR"];

/** Nobody answered; asked again somebody may. */
export const isUnreached = (error: unknown): boolean => error instanceof Error && "code" in error && REFUSED.includes(String(error.code));

/** `metav1.Status`, which every refusal of an API server is. */
const Status = z.object({ message: z.string() });

/** What a refusal says: its message, else the first `maxChars` of its body. */
export async function refusalOf(answer: Response, maxChars: number): Promise<string> {
  const text = await answer.text();
  return Status.safeParse(parseJson(text)).data?.message ?? text.slice(0, maxChars);
}
