/** A binary heap that knows where each item is, so that one whose key has changed can be moved: O(log n) an operation. Items are unique. */
export class Heap<T> {
  readonly #items: T[] = [];
  readonly #at = new Map<T, number>();
  readonly #before: (a: T, b: T) => boolean;

  /** `before` must be a strict total order, else what comes first depends on the history. */
  constructor(before: (a: T, b: T) => boolean) {
    this.#before = before;
  }

  get size(): number {
    return this.#items.length;
  }

  /** Adds the item, or moves it to where its key now belongs. */
  put(item: T): void {
    let at = this.#at.get(item);
    if (at === undefined) {
      at = this.#items.length;
      this.#items.push(item);
      this.#at.set(item, at);
    }
    this.#sink(this.#rise(at));
  }

  remove(item: T): void {
    const at = this.#at.get(item);
    if (at === undefined) return;
    this.#at.delete(item);
    const last = this.#items.pop();
    if (last === undefined || last === item) return;
    this.#set(at, last);
    this.#sink(this.#rise(at));
  }

  first(): T | undefined {
    return this.#items[0];
  }

  /** In order; the k-th costs O(log k). The heap must not change meanwhile. */
  *ordered(): Generator<T> {
    const first = this.first();
    if (first === undefined) return;
    yield first;
    const frontier = new Heap<number>((a, b) => this.#less(a, b));
    const open = (at: number) => {
      for (const child of [2 * at + 1, 2 * at + 2]) if (child < this.#items.length) frontier.put(child);
    };
    open(0);
    for (let at = frontier.first(); at !== undefined; at = frontier.first()) {
      frontier.remove(at);
      const item = this.#items[at];
      if (item !== undefined) yield item;
      open(at);
    }
  }

  #less(a: number, b: number): boolean {
    const [x, y] = [this.#items[a], this.#items[b]];
    return x !== undefined && y !== undefined && this.#before(x, y);
  }

  #set(at: number, item: T): void {
    this.#items[at] = item;
    this.#at.set(item, at);
  }

  #swap(a: number, b: number): void {
    const [x, y] = [this.#items[a], this.#items[b]];
    if (x === undefined || y === undefined) return;
    this.#set(a, y);
    this.#set(b, x);
  }

  #rise(at: number): number {
    for (let up = (at - 1) >> 1; at > 0 && this.#less(at, up); up = (at - 1) >> 1) {
      this.#swap(at, up);
      at = up;
    }
    return at;
  }

  #sink(at: number): void {
    for (;;) {
      const left = 2 * at + 1;
      const child = this.#less(left + 1, left) ? left + 1 : left;
      if (!this.#less(child, at)) return;
      this.#swap(at, child);
      at = child;
    }
  }
}
