import type { Msg } from "@nats-io/transport-node";
import { sha256 } from "@vibeserve/shared";
import { Packr } from "msgpackr";
import { Allowance } from "../process/allowance.ts";

/** An agent asks when it starts and then every 5 s; one that is heard less often asks again. */
const [OF_ONE_AT_ONCE, OF_ONE_PER_S] = [4, 1];
/** Without a good token: nodes that start together, and then some 5 % of a core for looking at signatures. */
const [AT_ONCE, PER_S] = [256, 50];
/** Where the broker says who asks (an import that shares that): nats-server replaces whatever an asker writes there itself. */
const ASKER = "Nats-Request-Info";
const packr = new Packr({ useRecords: false });

/**
 * Whose questions on vs.join are looked at; to the rest there is no answer, and they ask again. A join line is known to whoever ever had one, and keys cost nothing:
 * so connections are told apart by the broker's word, and nodes by the tokens that were given out.
 *   D1. A connection has its own bound, so that a flood on one keeps no other waiting. The joiners' account has 256.
 *   D2. Who has a good token is not kept waiting by those who have none: each token has a bound of its own.
 *   D3. All others together have one, so that the verbs are not kept waiting by any number of joiners.
 */
export class Door {
  readonly #ofOne: Allowance;
  readonly #ofToken: Allowance;
  readonly #ofAll: Allowance;

  constructor(now: () => number = Date.now) {
    [this.#ofOne, this.#ofToken] = [new Allowance(OF_ONE_AT_ONCE, OF_ONE_PER_S, now), new Allowance(OF_ONE_AT_ONCE, OF_ONE_PER_S, now)];
    this.#ofAll = new Allowance(AT_ONCE, PER_S, now);
  }

  /** isGood: whether a token of this hash was given out and is still good. */
  admits(message: Pick<Msg, "headers" | "data">, isGood: (hash: string) => boolean): boolean {
    const asker = connectionOf(message);
    if (asker !== null && !this.#ofOne.take(asker)) return false;
    if (this.#ofAll.take("")) return true;
    const hash = tokenHash(message.data);
    return hash !== null && isGood(hash) && this.#ofToken.take(hash);
  }
}

/** Null: the broker does not say. */
function connectionOf({ headers }: Pick<Msg, "headers">): string | null {
  try {
    const { server, id } = JSON.parse(headers?.get(ASKER) ?? "") as { server?: unknown; id?: unknown };
    return typeof id === "number" ? `${String(server)}/${id}` : null;
  } catch {
    return null;
  }
}

/** Of a question that nobody has looked at yet. */
function tokenHash(data: Uint8Array): string | null {
  try {
    const { proof } = packr.unpack(data) as { proof?: { token?: unknown } };
    return typeof proof?.token === "string" ? sha256(proof.token) : null;
  } catch {
    return null;
  }
}
