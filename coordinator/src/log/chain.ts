import { CampaignEvent, CodecError, decode, encode, sha256, subjects, type CampaignFact } from "@vibeserve/shared";

/** `prev` of a campaign's first event. */
export const GENESIS = "0".repeat(64);

/** One event and its bytes as stored; the bytes are what the next event's `prev` covers. */
export interface Logged {
  event: CampaignEvent;
  bytes: Uint8Array;
  /** Sequence in VS_EVENTS; it orders and fences appends. */
  streamSeq: number;
}

export class ChainBrokenError extends Error {
  readonly campaign: string;
  readonly seq: number;
  constructor(campaign: string, seq: number, message: string) {
    super(`campaign ${campaign}, event ${seq}: ${message}; the log was altered after it was written`);
    this.name = "ChainBrokenError";
    this.campaign = campaign;
    this.seq = seq;
  }
}

/** What reading a log throws where it is not what this release wrote; everything else says nothing of the log. */
export const isUnreadable = (error: unknown): error is CodecError | ChainBrokenError =>
  error instanceof CodecError || error instanceof ChainBrokenError;

export const linkTo = (previous: Uint8Array | null): string => (previous ? sha256(previous) : GENESIS);

/** The event that a fact becomes at the end of its campaign's log; `at` in ms since 1970. Throws CodecError where the fact is not well formed. */
export function eventAfter(
  campaign: string,
  tail: Logged | null,
  fact: CampaignFact,
  at: number,
): { event: CampaignEvent; bytes: Uint8Array } {
  const seq = (tail?.event.seq ?? 0) + 1;
  const event: CampaignEvent = { v: 1, kind: "event", campaign, seq, at, prev: linkTo(tail?.bytes ?? null), fact };
  return { event, bytes: encode(CampaignEvent, event, subjects.event(campaign)) };
}

/** Decodes the event that follows `previous` and checks campaign, number and hash. Throws CodecError or ChainBrokenError. */
export function decodeNext(campaign: string, bytes: Uint8Array, previous: Logged | null): CampaignEvent {
  const event = decode(CampaignEvent, bytes, subjects.event(campaign));
  const seq = (previous?.event.seq ?? 0) + 1;
  if (event.campaign !== campaign) throw new ChainBrokenError(campaign, seq, `belongs to campaign ${event.campaign}`);
  if (event.seq !== seq) throw new ChainBrokenError(campaign, seq, `has number ${event.seq}`);
  const prev = linkTo(previous?.bytes ?? null);
  if (event.prev !== prev) throw new ChainBrokenError(campaign, seq, `prev is ${event.prev}, the event before it hashes to ${prev}`);
  return event;
}
