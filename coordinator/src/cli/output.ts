import type { ApiError } from "@vibeserve/shared";

type Answer = Readonly<Record<string, unknown>> & { v: number; kind: string };

/** Where a command's words go: with --json one object on stdout and everything else on stderr. */
export interface Output {
  /** The command's answer: `object` with --json, else `text`. Once a command. */
  answer(object: Answer, text: string): void;
  /** Why it ends with another code than 0: a message on stderr; with --json also as an object, unless the answer was given already. */
  fail(code: ApiError["code"] | "unreachable", message: string): void;
  /** A line about what is going on. */
  say(text: string): void;
  /** Where a view of events is drawn. */
  view: NodeJS.WriteStream;
}

export function openOutput(json: boolean, streams = { out: process.stdout, err: process.stderr }): Output {
  let answered = false;
  const answer = (object: Answer, text: string): void => {
    answered = true;
    streams.out.write(json ? `${JSON.stringify(object)}\n` : text === "" ? "" : `${text}\n`);
  };
  return {
    answer,
    fail: (code, message) => {
      if (json && !answered) answer({ v: 1, kind: "error", code, message }, "");
      streams.err.write(`vibeserve: ${message}\n`);
    },
    say: (text) => void (json ? streams.err : streams.out).write(`${text}\n`),
    view: json ? streams.err : streams.out,
  };
}
