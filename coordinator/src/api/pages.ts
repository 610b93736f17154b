import { MAX_MESSAGE_BYTES } from "@vibeserve/shared";
import type { Logged } from "../log/chain.ts";

/** Leaves room in a message for the rest of the page. */
const PAGE_BYTES = MAX_MESSAGE_BYTES - 32 * 1024;

/** As many events after number `after` as fit one answer; at least one, so that a reader always gets on. Events are numbered from 1 without gaps. */
export function pageOf(events: readonly Logged[], after: number): { events: Uint8Array[]; more: boolean } {
  const page: Uint8Array[] = [];
  let bytes = 0;
  let next = after;
  for (; next < events.length; next++) {
    const event = events[next];
    if (!event) break;
    bytes += event.bytes.length + 8;
    if (page.length > 0 && bytes > PAGE_BYTES) break;
    page.push(event.bytes);
  }
  return { events: page, more: next < events.length };
}
