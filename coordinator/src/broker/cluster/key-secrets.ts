import { z } from "zod";
import { UnreachableError } from "../../api/client.ts";
import { ApiProblem } from "../../api/problem.ts";
import { apiServer, isUnreached, refusalOf, type ApiServerAccess } from "../../kubernetes/api-server.ts";
import { patiently, YOUNG_POD_MS } from "../../process/backoff.ts";
import { messageOf } from "../../process/message-of.ts";
import type { KeyFolder, KeyStore } from "./key-folders.ts";

export interface SecretsPlace extends ApiServerAccess {
  /** Of the API server. */
  url: string;
  namespace: string;
  /** Secrets are PREFIX-server, PREFIX-coordinator, PREFIX-join, PREFIX-client. */
  prefix: string;
}

const Secret = z.object({ data: z.record(z.string(), z.base64()).default({}) });

/**
 * Keys as Kubernetes Secrets, by the pod's own service account: it needs `get` and `create` on secrets in its namespace, nothing else. Throws ApiProblem: conflict
 * (409: another run made it meanwhile), not-found (404: no such namespace), bad-input (401, 403 and all else), each with what to do; UnreachableError after 30 s in
 * which the API server was not reached. Every status is an answer.
 */
export function keySecrets({ url, namespace, prefix, ...access }: SecretsPlace): KeyStore {
  const askOnce = apiServer(access);
  const ask = async (where: string, body?: unknown): Promise<Response> => {
    try {
      return await patiently(
        YOUNG_POD_MS,
        () => askOnce(where, body),
        (error) => !isUnreached(error),
      );
    } catch (error) {
      throw new UnreachableError(`no API server at ${url}: ${messageOf(error)}`, { cause: error });
    }
  };
  const nameOf = (folder: KeyFolder) => `Secret ${namespace}/${prefix}-${folder}`;
  const all = `${url.replace(/\/$/, "")}/api/v1/namespaces/${namespace}/secrets`;
  return {
    nameOf,
    read: async (folder) => {
      const answer = await ask(`${all}/${prefix}-${folder}`);
      if (answer.status === 404) return null;
      if (answer.status !== 200) throw await problem(answer, `get ${nameOf(folder)}`, namespace);
      const { data } = Secret.parse(await answer.json());
      return Object.fromEntries(Object.entries(data).map(([name, text]) => [name, Buffer.from(text, "base64").toString("utf8")]));
    },
    create: async (folder, files) => {
      const answer = await ask(all, {
        apiVersion: "v1",
        kind: "Secret",
        metadata: {
          name: `${prefix}-${folder}`,
          labels: { "app.kubernetes.io/part-of": "vibeserve", "app.kubernetes.io/component": "keys" },
        },
        type: "Opaque",
        data: Object.fromEntries(Object.entries(files).map(([name, text]) => [name, Buffer.from(text).toString("base64")])),
      });
      if (answer.status !== 201) throw await problem(answer, `create ${nameOf(folder)}`, namespace);
    },
  };
}

async function problem(answer: Response, what: string, namespace: string): Promise<ApiProblem> {
  const said = `${what}: the API server answered ${answer.status}: ${await refusalOf(answer, 200)}`;
  switch (answer.status) {
    case 401:
      return new ApiProblem("bad-input", `${said}; the token of this pod's service account is not accepted there`);
    case 403:
      return new ApiProblem(
        "bad-input",
        `${said}; give the pod's service account a Role with verbs get and create on secrets in namespace ${namespace}`,
      );
    case 404:
      return new ApiProblem("not-found", `${said}; is there a namespace ${namespace}?`);
    case 409:
      return new ApiProblem("conflict", `${said}; another run has made it meanwhile: run this one again, it keeps what is there`);
    default:
      return new ApiProblem("bad-input", said);
  }
}
