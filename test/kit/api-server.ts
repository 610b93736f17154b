import { scriptedHttp, sendJson, type Posted } from "./scripted-http.ts";

/** A status code, and the object that comes with it. */
export type ApiAnswer = [code: number, body: unknown];

/** What an API server says of what it refuses. */
export const refusal = (code: number, reason: string, message: string): ApiAnswer => [
  code,
  { kind: "Status", apiVersion: "v1", metadata: {}, status: "Failure", message, reason, code },
];

/** Answers as a Kubernetes API server does, over real HTTP; what it knows of objects is the test's. */
export async function apiServer(answer: (asked: Posted) => ApiAnswer): Promise<AsyncDisposable & { url: string }> {
  const http = await scriptedHttp((asked, response) => {
    const [code, body] = answer(asked);
    sendJson(response, code, body);
  });
  return { url: http.url, [Symbol.asyncDispose]: () => http.close() };
}
