import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { probeAnswer, type Check, type ListenAddress } from "@vibeserve/shared";

/** A path's answer is a probe's, or a text of this type. */
export type Page = { checks: () => readonly Check[] } | { type: string; text: () => Promise<string> };

export class HttpListenError extends Error {
  constructor({ host, port }: ListenAddress, cause: NodeJS.ErrnoException) {
    const why = cause.code === "EADDRINUSE" ? "the port is taken; end what holds it, or choose another" : cause.message;
    super(`--http ${host}:${port}: ${why}`, { cause });
    this.name = "HttpListenError";
  }
}

/** Kubelets and scrapers are a handful; whoever opens more waits for nothing. */
const MAX_CONNECTIONS = 64;
/** Time for a request to come in whole, ms: it is one line and some headers. */
const REQUEST_MS = 5_000;

/** Answers GET and HEAD of fixed paths. It reads no body, knows no user and shows nothing that is secret: no key, no prompt, no campaign's id. */
export class HttpListener implements AsyncDisposable {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Throws HttpListenError. */
  static async open(listen: ListenAddress, pages: ReadonlyMap<string, Page>): Promise<HttpListener> {
    const server = createServer(
      { requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS, keepAliveTimeout: REQUEST_MS },
      (request, response) => {
        const end = (status: number, text: string, type = "text/plain; charset=utf-8") =>
          response
            .writeHead(status, { "content-type": type, "cache-control": "no-store", "x-content-type-options": "nosniff" })
            .end(request.method === "HEAD" ? undefined : text);
        // "//" is no address: what can't be read is not found, and ends nothing.
        const { pathname, searchParams } = URL.parse(request.url ?? "/", "http://host") ?? {
          pathname: "",
          searchParams: new URLSearchParams(),
        };
        const page = pages.get(pathname);
        if (request.method !== "GET" && request.method !== "HEAD") return void end(405, "only GET and HEAD\n");
        if (!page) return void end(404, `${[...pages.keys()].join("\n")}\n`);
        const answer =
          "checks" in page
            ? probeAnswer(pathname.slice(1), page.checks(), searchParams.has("verbose")).then(({ status, text }) => end(status, text))
            : page.text().then((text) => end(200, text, page.type));
        answer.catch((error: unknown) => end(500, `${error instanceof Error ? error.message : String(error)}\n`));
      },
    );
    server.maxConnections = MAX_CONNECTIONS;
    server.listen(listen.port, listen.host);
    try {
      await once(server, "listening");
    } catch (error) {
      throw new HttpListenError(listen, error as NodeJS.ErrnoException);
    }
    return new HttpListener(server);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }
}
