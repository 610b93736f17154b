/** GPT-2's map of the 256 byte values to printable characters, in which vocabularies of that kind are written. */
const TO_CHAR: readonly string[] = (() => {
  const own = (b: number): boolean => (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(own(b) ? b : next++));
})();
const TO_BYTE = new Map(TO_CHAR.map((c, b) => [c, b]));

/** The characters that stand for the bytes, one each. */
export function charsOfBytes(bytes: Uint8Array): string[] {
  return Array.from(bytes, (b) => TO_CHAR[b]!);
}

/** The bytes that the characters stand for, or null if one stands for none (the text of a control token). */
export function bytesOfChars(text: string): Uint8Array | null {
  const out: number[] = [];
  for (const c of text) {
    const b = TO_BYTE.get(c);
    if (b === undefined) return null;
    out.push(b);
  }
  return Uint8Array.from(out);
}
