import fc from "fast-check";
import { expect, it } from "vitest";
import type { Dialect } from "../../gpu-agent/loadgen/event.ts";
import { createFraming } from "../../gpu-agent/loadgen/framing.ts";
import { parseTranscript } from "../../gpu-agent/loadgen/parse.ts";
import type { RequestRecord } from "../../gpu-agent/loadgen/plan.ts";
import { Transcript } from "../../gpu-agent/loadgen/transcript.ts";

const HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const chunk = (data: string): string => `${Buffer.byteLength(data).toString(16)}\r\n${data}\r\n`;
const token = (id: number, text: string): string =>
  `data: ${JSON.stringify({ choices: [{ delta: { content: text }, token_ids: [id] }] })}\n\n`;
const LAST = `data: ${JSON.stringify({ choices: [{ delta: {}, finish_reason: "length" }] })}\n\n`;
const USAGE = `data: ${JSON.stringify({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 2 } })}\n\n`;
const DONE = "data: [DONE]\n\n";

/** Feeds the bytes in pieces, piece k at k milliseconds; tells at which piece the end was seen. */
function receive(bytes: Buffer, cuts: readonly number[], dialect: Dialect = "openai"): { record: RequestRecord; endAt: number | null } {
  const t = new Transcript(0, 0, 0);
  t.sentMs = 0;
  const framing = createFraming();
  const at = [...new Set([0, ...cuts, bytes.length])].toSorted((a, b) => a - b);
  let endAt: number | null = null;
  for (let k = 1; k < at.length; k++) {
    const piece = bytes.subarray(at[k - 1], at[k]);
    t.append(piece, k);
    if (framing.take(piece) !== "end") continue;
    endAt ??= k;
    t.endMs = k;
  }
  return { record: parseTranscript(t, dialect), endAt };
}

it("however a response is cut into reads, its end is seen at its last byte, and each event has the arrival of its own last byte", () => {
  const events = [token(1, "é✓"), token(2, "\r\n0\r\n\r\n"), LAST, USAGE, DONE];
  // Events and HTTP chunks need not agree.
  const body = Buffer.from(events.join(""));
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 1, max: body.length - 1 })),
      fc.array(fc.integer({ min: 1, max: 900 })),
      (chunkCuts, readCuts) => {
        const edges = [...new Set([0, ...chunkCuts, body.length])].toSorted((a, b) => a - b);
        const parts = edges.slice(1).map((e, i) => body.subarray(edges[i], e));
        const framed = parts.flatMap((p) => [Buffer.from(`${p.length.toString(16)}\r\n`), p, Buffer.from("\r\n")]);
        const bytes = Buffer.concat([Buffer.from(HEAD), ...framed, Buffer.from("0\r\n\r\n")]);
        const cuts = readCuts.filter((c) => c < bytes.length);
        const { record, endAt } = receive(bytes, cuts);
        expect(endAt).toBe(new Set([...cuts, bytes.length]).size);
        expect(record).toMatchObject({
          status: 200,
          error: null,
          done: true,
          finish: "length",
          usage: { promptTokens: 3, completionTokens: 2 },
        });
        expect(record.chunks.map((c) => [c.ids, c.text])).toEqual([
          [[1], "é✓"],
          [[2], "\r\n0\r\n\r\n"],
        ]);
        expect(record.chunks.every((c) => c.atMs >= 1 && c.atMs <= (endAt ?? 0))).toBe(true);
        expect(record.chunks[0]?.atMs).toBeLessThanOrEqual(record.chunks[1]?.atMs ?? 0);
      },
    ),
  );
});

it("an event whose last byte comes late is as late as that byte", () => {
  const first = chunk(token(7, "a"));
  const bytes = Buffer.from(HEAD + first + chunk(LAST + USAGE + DONE) + "0\r\n\r\n");
  const endOfEvent = HEAD.length + first.length - 2;
  expect(receive(bytes, [endOfEvent - 1]).record.chunks[0]?.atMs).toBe(2);
  expect(receive(bytes, [endOfEvent]).record.chunks[0]?.atMs).toBe(1);
});

it.each([
  ["an event after the end", HEAD + chunk(DONE + token(1, "a")) + "0\r\n\r\n", /an event after the end/],
  ["tokens after the finish reason", HEAD + chunk(LAST + token(1, "a")) + "0\r\n\r\n", /tokens after finish_reason/],
  ["ids that are no numbers", HEAD + chunk('data: {"choices":[{"token_ids":["1"]}]}\n\n') + "0\r\n\r\n", /token ids that are none/],
  ["text that is no text", HEAD + chunk('data: {"choices":[{"delta":{"content":5}}]}\n\n') + "0\r\n\r\n", /text that is not a string/],
  ["an event that is no JSON", HEAD + chunk("data: {oops\n\n") + "0\r\n\r\n", /not JSON/],
  ["an error in the stream", HEAD + chunk('data: {"error":{"message":"out of memory"}}\n\n') + "0\r\n\r\n", /out of memory/],
  ["half an event", HEAD + chunk("data: {}") + "0\r\n\r\n", /did not end|inside an event/],
  ["a chunk size that is none", `${HEAD}zz\r\nx\r\n0\r\n\r\n`, /bad chunk size/],
  ["no HTTP at all", "hello\r\n\r\n", /not HTTP/],
  ["a status of 500", "HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nwhy?", /status 500: "why\?"/],
])("%s is said in the record, and nothing throws", (_, response, error) => {
  expect(receive(Buffer.from(response), []).record.error).toMatch(error);
});

it("whatever bytes come, the record says so and nothing throws", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), fc.boolean(), (noise, framed) => {
      const bytes = Buffer.concat([Buffer.from(framed ? HEAD : ""), Buffer.from(noise)]);
      if (bytes.length === 0) return;
      expect(receive(bytes, [10]).record.error).not.toBeNull();
    }),
    { numRuns: 300 },
  );
});

it("a response with a length ends there, and one without either ends with its connection", () => {
  const sized = Buffer.from("HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\ndata: [DONE]\n\n");
  expect(receive(sized, [20, 45])).toMatchObject({ endAt: 3, record: { done: true, error: null } });
  const framing = createFraming();
  expect(framing.take(Buffer.from("HTTP/1.1 200 OK\r\n\r\ndata: "))).toBe("more");
  expect(framing.closed()).toBe(true);
});

it("llama.cpp's own stream is read as well", () => {
  const events = [
    { content: "He", tokens: [5], stop: false },
    { content: "y", tokens: [6], stop: false },
    { content: "", tokens: [], stop: true, stop_type: "limit", tokens_predicted: 2, tokens_evaluated: 9 },
  ];
  const body = events.map((e) => `data: ${JSON.stringify(e)}\n\n`).join("");
  const { record } = receive(Buffer.from(`${HEAD}${chunk(body)}0\r\n\r\n`), [], "llama.cpp");
  expect(record).toMatchObject({ error: null, done: true, finish: "length", usage: { promptTokens: 9, completionTokens: 2 } });
  expect(record.chunks.map((c) => c.ids)).toEqual([[5], [6]]);
});

it("completions whose events carry ids beside text are read as vLLM and SGLang write them, with null where there are none", () => {
  const choices = (choice: object): string =>
    `data: ${JSON.stringify({ choices: [{ index: 0, logprobs: null, ...choice }], usage: null })}\n\n`;
  const events = [
    choices({ text: "He", finish_reason: null, token_ids: [5, 6] }),
    choices({ text: "", finish_reason: "length", token_ids: null }),
    USAGE,
    DONE,
  ];
  const bytes = Buffer.from([HEAD, ...events.map(chunk), "0\r\n\r\n"].join(""));
  const { record } = receive(bytes, [], "openai-ids");
  expect(record).toMatchObject({ error: null, done: true, finish: "length", usage: { promptTokens: 3, completionTokens: 2 } });
  expect(record.chunks).toMatchObject([{ ids: [5, 6], text: "He" }]);
});
