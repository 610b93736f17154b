import { connect, createServer, type Socket } from "node:net";

interface Wire {
  cut: boolean;
  /** Of the next connections. */
  refuses: number;
}

/** A wire between an agent and its broker that can be cut: nothing is said to either side, as when a cable is pulled and the sockets are dead. */
export class TcpProxy implements AsyncDisposable {
  readonly url: string;
  readonly #close: () => Promise<void>;
  readonly #pairs: Set<Socket>;
  readonly #wire: Wire;

  private constructor(url: string, pairs: Set<Socket>, wire: Wire, close: () => Promise<void>) {
    this.url = url;
    this.#pairs = pairs;
    this.#wire = wire;
    this.#close = close;
  }

  /** port: default a free one. */
  static async open(target: string, port = 0): Promise<TcpProxy> {
    const to = new URL(target);
    const pairs = new Set<Socket>();
    const wire: Wire = { cut: false, refuses: 0 };
    const server = createServer((near) => {
      if (wire.cut || wire.refuses > 0) {
        wire.refuses = Math.max(0, wire.refuses - 1);
        near.destroy();
        return;
      }
      const far = connect(Number(to.port), to.hostname);
      for (const [from, other] of [
        [near, far],
        [far, near],
      ] as const) {
        pairs.add(from);
        from.on("data", (data) => {
          if (!wire.cut) other.write(data);
        });
        from.on("error", () => other.destroy());
        from.on("close", () => {
          pairs.delete(from);
          other.destroy();
        });
      }
    });
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("the proxy has no port");
    const close = (): Promise<void> => new Promise((resolve) => server.close(() => resolve()));
    return new TcpProxy(`nats://127.0.0.1:${address.port}`, pairs, wire, close);
  }

  /** Nothing goes through from now on, either way. */
  cut(): void {
    this.#wire.cut = true;
  }

  /** New connections go through; those of before are dead. */
  heal(): void {
    for (const socket of [...this.#pairs]) socket.destroy();
    this.#wire.cut = false;
  }

  /** The next so many connections are broken off at once; others are not touched. */
  refuse(next: number): void {
    this.#wire.refuses = next;
  }

  /** How many of those were not asked for yet. */
  get refuses(): number {
    return this.#wire.refuses;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of [...this.#pairs]) socket.destroy();
    await this.#close();
  }
}
