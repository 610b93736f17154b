import type * as http from "node:http";
import { isRecord, parseJson } from "@vibeserve/shared";
import type { Recipe } from "./recipe.ts";
import type { Ask } from "./spending.ts";

/** Anthropic's own bound on a request. */
export const MAX_REQUEST_BYTES = 32 * 2 ** 20;
const AUTH_HEADERS = /^(authorization|x-api-key|x-goog-api-key|api-key|proxy-.*|cookie)$/;
/** Of this connection, or of no meaning to the provider. Nothing is asked for compressed: it is metered as it passes. */
const HOP_HEADERS =
  /^(host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|content-length|accept-encoding|forwarded|x-forwarded-.*)$/;

/** null: larger than allowed. */
export async function readBody(message: http.IncomingMessage, maxBytes: number): Promise<Buffer | null> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of message as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > maxBytes) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Tools that a provider carries out itself, with a network and at a price of their own: Anthropic's, OpenAI's and Gemini's names for them. */
const PROVIDERS_OWN =
  /^(web_?search|web_?fetch|code_?execution|code_?interpreter|file_?search|image_?generation|mcp|google|url_?context|retrieval|enterprise)/i;

/**
 * What a request asks for, whatever its dialect; null: no JSON object. remote: a tool in it that the provider would carry out, or "". Where it names several
 * bounds or wants several answers, the most that it can get.
 */
export function askOf(body: Buffer, model: string | null): (Ask & { remote: string }) | null {
  const o = parseJson(body.toString("utf8"));
  if (!isRecord(o) || Array.isArray(o)) return null;
  const config = isRecord(o["generationConfig"]) ? o["generationConfig"] : {};
  const numbers = (...values: unknown[]): number[] => values.filter((n) => typeof n === "number" && n >= 0) as number[];
  const bounds = numbers(o["max_tokens"], o["max_completion_tokens"], o["max_output_tokens"], config["maxOutputTokens"]);
  const answers = Math.max(1, ...numbers(o["n"], o["best_of"], config["candidateCount"]));
  const tools = Array.isArray(o["tools"]) ? (o["tools"] as unknown[]).filter(isRecord) : [];
  const given = Object.keys(o).filter((key) => !Array.isArray(o[key]) || o[key].length > 0);
  const named = [...tools.flatMap((t) => [...(typeof t["type"] === "string" ? [t["type"]] : []), ...Object.keys(t)]), ...given];
  return {
    model: model ?? (typeof o["model"] === "string" ? o["model"] : null),
    bytes: body.length,
    maxTokens: bounds.length === 0 ? null : Math.max(...bounds) * answers,
    remote: named.find((name) => PROVIDERS_OWN.test(name)) ?? "",
  };
}

/** What is passed on of a client's headers, with the credential in the provider's own way. */
export function headersFor(
  headers: http.IncomingHttpHeaders,
  auth: Recipe["api"]["auth"],
  credential: string | null,
): http.OutgoingHttpHeaders {
  const kept = Object.entries(headers).filter(([name]) => !AUTH_HEADERS.test(name) && !HOP_HEADERS.test(name));
  const own = credential === null ? {} : auth === "bearer" ? { authorization: `Bearer ${credential}` } : { [auth]: credential };
  return { ...Object.fromEntries(kept), "accept-encoding": "identity", ...own };
}
