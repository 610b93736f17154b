import { charsOfBytes } from "./byte-level.ts";

/** Words remembered with their ids. Text repeats its words; 32,768 of them take some 5 MB. */
const CACHE_WORDS = 32_768;

/** Byte-pair encoding of one piece of text: the pair of lowest rank is merged first, leftmost first among equals. */
export class Bpe {
  readonly #ids: ReadonlyMap<string, number>;
  readonly #ranks: ReadonlyMap<string, number>;
  readonly #cache = new Map<string, readonly number[]>();

  readonly #wholeFirst: boolean;

  /** merges: "left right", lowest rank first. wholeFirst: a piece that is a token is that token (tokenizer.json's `ignore_merges`). */
  constructor(ids: ReadonlyMap<string, number>, merges: readonly string[], wholeFirst = false) {
    this.#ids = ids;
    this.#wholeFirst = wholeFirst;
    this.#ranks = new Map(merges.map((m, rank) => [m, rank]));
  }

  /** Ids of a piece. A byte that the vocabulary lacks yields nothing, as in the original. */
  encode(piece: string): readonly number[] {
    const known = this.#cache.get(piece);
    if (known) return known;
    const chars = charsOfBytes(Buffer.from(piece, "utf8"));
    const whole = this.#wholeFirst ? this.#ids.get(chars.join("")) : undefined;
    const ids = whole === undefined ? this.#merge(chars.filter((c) => this.#ids.has(c))) : [whole];
    if (this.#cache.size >= CACHE_WORDS) this.#cache.clear();
    this.#cache.set(piece, ids);
    return ids;
  }

  #merge(symbols: string[]): number[] {
    // Long runs without a break are rare; joining all pairs of the best rank per pass keeps even those near n log n.
    while (symbols.length > 1) {
      let best = Infinity;
      for (let i = 0; i + 1 < symbols.length; i++) best = Math.min(best, this.#ranks.get(`${symbols[i]!} ${symbols[i + 1]!}`) ?? Infinity);
      if (best === Infinity) break;
      const next: string[] = [];
      for (let i = 0; i < symbols.length; i++) {
        const [a, b] = [symbols[i]!, symbols[i + 1]];
        if (b !== undefined && this.#ranks.get(`${a} ${b}`) === best) {
          next.push(a + b);
          i++;
        } else next.push(a);
      }
      symbols = next;
    }
    return symbols.map((s) => {
      const id = this.#ids.get(s);
      if (id === undefined) throw new Error(`the vocabulary lacks the merged piece ${JSON.stringify(s)}`);
      return id;
    });
  }
}
