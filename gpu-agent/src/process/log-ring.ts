/** Bytes kept from the start of a log (the first compiler error) and from its end (how it died). What lies between is dropped, so a flood costs no memory. */
const HEAD_BYTES = 16 * 1024;
const TAIL_BYTES = 64 * 1024;

/**
 * Bounded capture of an untrusted log. Raw bytes go into fixed buffers, so that taking in a flood is one copy; text is cleaned only when it is read.
 */
export class LogRing {
  readonly #head = Buffer.alloc(HEAD_BYTES);
  readonly #tail = Buffer.alloc(TAIL_BYTES);
  #total = 0;

  write(chunk: Uint8Array): void {
    let rest = chunk;
    if (this.#total < HEAD_BYTES) {
      const part = rest.subarray(0, HEAD_BYTES - this.#total);
      this.#head.set(part, this.#total);
      this.#total += part.length;
      rest = rest.subarray(part.length);
    }
    if (rest.length > TAIL_BYTES) {
      this.#total += rest.length - TAIL_BYTES;
      rest = rest.subarray(rest.length - TAIL_BYTES);
    }
    let at = (this.#total - HEAD_BYTES) % TAIL_BYTES;
    while (rest.length > 0) {
      const part = rest.subarray(0, TAIL_BYTES - at);
      this.#tail.set(part, at);
      this.#total += part.length;
      rest = rest.subarray(part.length);
      at = 0;
    }
  }

  get totalBytes(): number {
    return this.#total;
  }

  /** Everything that was kept, cleaned; a line names what was left out. */
  text(): string {
    const afterHead = this.#total - HEAD_BYTES;
    if (afterHead <= 0) return cleanText(this.#head.toString("utf8", 0, this.#total));
    if (afterHead <= TAIL_BYTES) return cleanText(Buffer.concat([this.#head, this.#tail.subarray(0, afterHead)]).toString("utf8"));
    const at = afterHead % TAIL_BYTES;
    const tail = Buffer.concat([this.#tail.subarray(at), this.#tail.subarray(0, at)]);
    return `${cleanText(this.#head.toString("utf8"))}\n… ${afterHead - TAIL_BYTES} bytes left out …\n${cleanText(tail.toString("utf8"))}`;
  }

  /** Last `limit` characters, cleaned. */
  tail(limit = 8000): string {
    return this.text().slice(-limit);
  }

  /** Last `limit` bytes of UTF-8, cleaned: for a record with a bound. */
  tailBytes(limit: number): string {
    const bytes = Buffer.from(this.text());
    let from = Math.max(0, bytes.length - limit);
    while (from > 0 && from < bytes.length && (bytes.readUInt8(from) & 0xc0) === 0x80) from++;
    return bytes.toString("utf8", from);
  }

  /** First third and last two thirds of `limit` characters: for a build, whose first error says most. */
  ends(limit = 8000): string {
    const text = this.text();
    if (text.length <= limit) return text;
    const head = Math.floor(limit / 3);
    return `${text.slice(0, head)}\n…\n${text.slice(-(limit - head - 3))}`;
  }
}

const ESC = String.fromCharCode(27);
const BEL = String.fromCharCode(7);
const C1_CSI = String.fromCharCode(0x9b);
/** Terminal sequences: CSI, OSC and other strings up to their terminator (or the end of the line), and two-character escapes. */
const ESCAPES = new RegExp(
  `(?:${ESC}\\[|${C1_CSI})[0-?]*[ -/]*[@-~]|${ESC}[\\]PX^_][^${BEL}${ESC}\\n]*(?:${BEL}|${ESC}\\\\)?|${ESC}[ -/]*[0-~]?`,
  "g",
);
/** Controls other than tab and newline, C1 controls, and the marks that reorder text on a terminal (bidi) or hide (zero width). */
const CONTROLS = /[\p{Cc}\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/gu;

/** Text that is safe to show in a terminal or put in a record: no escapes, no control characters, carriage returns as line ends. */
export function cleanText(raw: string): string {
  return raw
    .replace(ESCAPES, "")
    .replace(/\r\n?/g, "\n")
    .replace(CONTROLS, (c) => (c === "\n" || c === "\t" ? c : ""));
}
