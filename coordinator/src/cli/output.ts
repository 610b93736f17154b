import type { ApiError } from "@vibeserve/shared";

/** Where a command's words go: with --json one object on stdout and everything else on stderr. */
export interface Output {
  json: boolean;
  /** The command's answer: `object` with --json, else `text`. Once a command. */
  answer(object: Readonly<Record<string, unknown>> & { v: number; kind: string }, text: string): void;
  /** A line about what is going on. */
  say(text: string): void;
  /** Where a view of events is drawn. */
  view: NodeJS.WriteStream;
}

export function openOutput(json: boolean, streams = { out: process.stdout, err: process.stderr }): Output {
  return {
    json,
    answer: (object, text) => void streams.out.write(json ? `${JSON.stringify(object)}\n` : text === "" ? "" : `${text}\n`),
    say: (text) => void (json ? streams.err : streams.out).write(`${text}\n`),
    view: json ? streams.err : streams.out,
  };
}

/** The object that --json prints for a failure. */
export function failureObject(
  code: ApiError["code"] | "unreachable",
  message: string,
): { v: 1; kind: "error"; code: string; message: string } {
  return { v: 1, kind: "error", code, message };
}
