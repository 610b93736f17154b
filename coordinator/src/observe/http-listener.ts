import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { pageAnswer, type ListenAddress, type Page } from "@vibeserve/shared";

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
      (request, response) =>
        void pageAnswer(request, pages).then(({ status, type, text }) =>
          response
            .writeHead(status, { "content-type": type, "cache-control": "no-store", "x-content-type-options": "nosniff" })
            .end(request.method === "HEAD" ? undefined : text),
        ),
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
