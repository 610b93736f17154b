/**
 * SmolLM's pre-tokenizer: every numeric character stands alone (Hugging Face's `Digits(individual_digits)`), then GPT-2's pattern is
 * applied to each piece between (`ByteLevel(use_regex)`).
 *
 * `\s` is spelled out as Unicode's White_Space, which is what the original's engine matches: JavaScript's own `\s` has U+FEFF and lacks U+0085.
 */
export const WHITE_SPACE = "\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const NUMERIC = /\p{N}/gu;
const GPT2 = new RegExp(
  `'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^${WHITE_SPACE}\\p{L}\\p{N}]+|[${WHITE_SPACE}]+(?![^${WHITE_SPACE}])|[${WHITE_SPACE}]+`,
  "gu",
);

/** Pieces of the text in order; joined they are the text. A merge never crosses their borders. */
export function preTokenize(text: string): string[] {
  const pieces: string[] = [];
  const words = (from: number, to: number): void => {
    if (from < to) for (const m of text.slice(from, to).matchAll(GPT2)) pieces.push(m[0]);
  };
  let at = 0;
  for (const m of text.matchAll(NUMERIC)) {
    words(at, m.index);
    pieces.push(m[0]);
    at = m.index + m[0].length;
  }
  words(at, text.length);
  return pieces;
}
