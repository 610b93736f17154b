import { connect, type Socket } from "node:net";
import { createFraming, type Framing } from "./framing.ts";
import type { Transcript } from "./transcript.ts";

export interface ConnectionEvents {
  /** The response on this connection is over; the next request may go out. */
  ended(transcript: Transcript): void;
  /** The connection or the response is broken; nothing more will come for this transcript. */
  failed(transcript: Transcript, why: string): void;
  /** Bytes came, before they are looked at: the place to enforce bounds. It may close the connection. */
  received(transcript: Transcript, bytes: number): void;
}

/**
 * One keep-alive HTTP/1.1 connection on a unix socket, one request at a time. Arrivals are stamped before anything else is done with them. The
 * read buffer is reused, so a read costs one copy and no allocation beyond the transcript's own growth.
 */
export class Connection {
  readonly index: number;
  readonly #path: string;
  readonly #now: () => number;
  readonly #events: ConnectionEvents;
  #socket: Socket | null = null;
  #current: Transcript | null = null;
  #framing: Framing | null = null;

  constructor(index: number, path: string, now: () => number, events: ConnectionEvents) {
    this.index = index;
    this.#path = path;
    this.#now = now;
    this.#events = events;
  }

  get busy(): boolean {
    return this.#current !== null;
  }

  /** Resolves when the socket is connected; rejects with the system's error. */
  open(): Promise<void> {
    return new Promise((resolve, reject) => {
      const socket = this.#connect();
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
  }

  /** Sends at once. A connection that the server closed after its last response is opened anew: that time is the server's. */
  send(request: Buffer, transcript: Transcript): void {
    this.#current = transcript;
    this.#framing = createFraming();
    const socket = this.#socket ?? this.#connect();
    transcript.sentMs = this.#now();
    socket.write(request);
  }

  close(): void {
    this.#current = null;
    this.#socket?.destroy();
    this.#socket = null;
  }

  #connect(): Socket {
    const socket = connect({
      path: this.#path,
      onread: {
        buffer: Buffer.allocUnsafeSlow(64 * 1024),
        callback: (length, buffer) => {
          this.#read(buffer.subarray(0, length));
          return true;
        },
      },
    });
    socket.on("error", (error) => this.#gone(socket, error.message));
    socket.on("close", () => this.#gone(socket, "closed"));
    this.#socket = socket;
    return socket;
  }

  #read(bytes: Uint8Array): void {
    const at = this.#now();
    const transcript = this.#current;
    const framing = this.#framing;
    if (!transcript || !framing) return;
    transcript.append(bytes, at);
    this.#events.received(transcript, bytes.length);
    if (this.#current !== transcript) return;
    const next = framing.take(bytes);
    if (next === "more") return;
    if (next === "end") this.#end(transcript, at);
    else this.#fail(transcript, next.refused);
  }

  #end(transcript: Transcript, at: number): void {
    transcript.endMs = at;
    this.#current = null;
    this.#events.ended(transcript);
  }

  #fail(transcript: Transcript, why: string): void {
    this.#current = null;
    this.#events.failed(transcript, why);
  }

  #gone(socket: Socket, why: string): void {
    if (this.#socket !== socket) return;
    this.#socket = null;
    socket.destroy();
    const transcript = this.#current;
    if (!transcript) return;
    if (this.#framing?.closed()) this.#end(transcript, this.#now());
    else this.#fail(transcript, `the connection ended in the middle of the response (${why})`);
  }
}
