import { readFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { isLoopback } from "@vibeserve/shared";

export interface ClusterCredentials {
  /** PEM file of the API server's authority; null: the system's authorities. */
  caFile: string | null;
  /** Sent as bearer; read each time, since it is replaced while one runs. */
  tokenFile: string | null;
}

/** The API server is in the same cluster, and its answers here are small. */
const ANSWER_MS = 10_000;

/**
 * One request with the cluster's authority, which Node's own fetch can't be given. Plain HTTP only to this machine. Rejects after 10 s, on an answer of more
 * than `maxBytes`, and where there is no connection; every status is an answer.
 */
export async function clusterRequest(
  { caFile, tokenFile }: ClusterCredentials,
  url: string,
  { method = "GET", body, maxBytes }: { method?: string; body?: unknown; maxBytes: number },
): Promise<Response> {
  const { protocol, hostname } = new URL(url);
  if (protocol !== "https:" && !isLoopback(hostname)) throw new Error(`${url} is not HTTPS: what is read in the clear proves nothing`);
  const text = body === undefined ? null : JSON.stringify(body);
  const options = {
    method,
    signal: AbortSignal.timeout(ANSWER_MS),
    headers: {
      ...(tokenFile === null ? {} : { authorization: `Bearer ${readFileSync(tokenFile, "utf8").trim()}` }),
      ...(text === null ? {} : { "content-type": "application/json" }),
    },
    ...(caFile === null ? {} : { ca: readFileSync(caFile) }),
  };
  return new Promise((resolve, reject) => {
    const asked = (protocol === "https:" ? httpsRequest : httpRequest)(url, options, (answer) => {
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
    asked.end(text ?? undefined);
  });
}
