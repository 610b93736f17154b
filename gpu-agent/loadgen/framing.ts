/**
 * Finds the end of an HTTP/1.1 response while it arrives, looking at no more than its head and the last bytes of each read. A candidate that
 * fakes the chunked terminator inside its text ends its own response early, which the parser then reports as broken.
 */
export interface Framing {
  /** Looks at the bytes that just arrived: "more", "end" (keep-alive, reusable), or a refusal that ends the run. */
  take(bytes: Uint8Array): "more" | "end" | { readonly refused: string };
  /** The connection was closed: whether that is a legal end of this response. */
  closed(): boolean;
}

const HEAD_LIMIT = 16 * 1024;
/** CR LF 0 CR LF CR LF: the last chunk and the end of the (empty) trailer. */
const TERMINATOR = [13, 10, 48, 13, 10, 13, 10];

export function createFraming(): Framing {
  let head: string | null = "";
  let kind: "chunked" | "length" | "close" | null = null;
  let remaining = 0;
  /** The last 7 bytes of the body so far, since the terminator may be split over two reads. */
  let tail: number[] = [];

  const body = (bytes: Uint8Array): "more" | "end" => {
    if (kind === "length") {
      remaining -= bytes.length;
      return remaining <= 0 ? "end" : "more";
    }
    if (kind !== "chunked" || bytes.length === 0) return "more";
    tail = bytes.length >= 7 ? [...bytes.subarray(-7)] : [...tail, ...bytes].slice(-7);
    return TERMINATOR.every((b, i) => tail[i] === b) ? "end" : "more";
  };

  return {
    take(bytes) {
      if (head === null) return body(bytes);
      head += Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
      const end = head.indexOf("\r\n\r\n");
      if (end < 0) return head.length > HEAD_LIMIT ? { refused: `a response head of over ${HEAD_LIMIT} bytes` } : "more";
      const text = head.slice(0, end);
      // The blank line's CR LF stands before the first chunk, so an empty chunked body is recognised too.
      const rest = head.length - end - 4;
      head = null;
      tail = [13, 10];
      const length = /\r\ncontent-length: *(\d+)/i.exec(text)?.[1];
      kind = /\r\ntransfer-encoding: *chunked/i.test(text) ? "chunked" : length === undefined ? "close" : "length";
      remaining = Number(length ?? 0);
      return body(bytes.subarray(bytes.length - rest));
    },
    closed: () => head === null && kind === "close",
  };
}
