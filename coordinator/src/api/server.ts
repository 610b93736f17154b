import type { Msg, NatsConnection } from "@nats-io/transport-node";
import { ApiError, CodecError, decode, encode, subjects } from "@vibeserve/shared";
import type { z } from "zod";
import { messageOf } from "../process/message-of.ts";
import { ApiProblem } from "./problem.ts";

export interface AnyVerb {
  answer: (data: Uint8Array, subject: string) => Promise<Uint8Array>;
}

/** What a verb takes and what it answers, tied to its handler, so that a table of verbs needs no casts. The handler throws ApiProblem for an answer that is no success. */
export function verb<Q extends z.ZodType, A extends z.ZodType>(
  request: Q,
  reply: A,
  handle: (request: z.output<Q>) => Promise<z.input<A>>,
): AnyVerb {
  return { answer: async (data, subject) => encode(reply, await handle(decode(request, data, subject)), subject) };
}

/**
 * Answers `vs.api.<verb>`. Requests of different clients run side by side; what must be in order goes through a campaign's mailbox. Every request gets
 * an answer: a bug in a verb is `internal` for its caller and a line in the log, not silence.
 */
export class ApiServer implements AsyncDisposable {
  readonly #verbs: Readonly<Record<string, AnyVerb>>;
  readonly #log: (event: string, facts: Record<string, unknown>) => void;
  readonly #close: () => Promise<void>;
  readonly #running = new Set<Promise<void>>();

  constructor(nc: NatsConnection, verbs: Readonly<Record<string, AnyVerb>>, log: (event: string, facts: Record<string, unknown>) => void) {
    this.#verbs = verbs;
    this.#log = log;
    const subscription = nc.subscribe(subjects.api("*"), {
      callback: (error, message) => {
        if (error) return;
        const run = this.#answer(message).finally(() => this.#running.delete(run));
        this.#running.add(run);
      },
    });
    this.#close = async () => subscription.drain();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close();
    await Promise.all(this.#running);
  }

  async #answer(message: Msg): Promise<void> {
    const name = message.subject.slice(subjects.api("").length);
    const fail = (code: ApiError["code"], text: string) =>
      message.respond(encode(ApiError, { v: 1, kind: "error", code, message: text }, message.subject));
    try {
      const found = Object.hasOwn(this.#verbs, name) ? this.#verbs[name] : undefined;
      if (!found) throw new ApiProblem("bad-input", `no verb "${name}"; there are: ${Object.keys(this.#verbs).join(", ")}`);
      message.respond(await found.answer(message.data, message.subject));
    } catch (error) {
      if (error instanceof ApiProblem) fail(error.code, error.message);
      else if (error instanceof CodecError) fail("bad-input", error.message);
      else {
        const why = messageOf(error);
        this.#log("api.failed", { verb: name, why, stack: error instanceof Error ? error.stack : undefined });
        fail("internal", why);
      }
    }
  }
}
