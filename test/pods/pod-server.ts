import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";

export interface StoredPod {
  metadata: { name: string; namespace: string; labels: Record<string, string>; creationTimestamp: string; deletionTimestamp?: string };
  spec: { containers: { name: string; env: { name: string; value: string }[] }[]; schedulingGates?: unknown[] };
  status: { phase: string; reason?: string; message?: string };
}

/** The three requests of an API server that worker pods make, with its status codes and its messages. What a kubelet would do, the test does to `pods`. */
export async function podServer(options: { created?: (pod: StoredPod) => void; deleted?: (pod: StoredPod) => void } = {}) {
  const pods = new Map<string, StoredPod>();
  const state = { refuse: null as string | null, created: [] as string[], lists: 0 };
  const status = (code: number, message: string) => ({
    code,
    body: { kind: "Status", apiVersion: "v1", status: "Failure", message, code },
  });
  const answer = async (request: IncomingMessage): Promise<{ code: number; body: unknown }> => {
    const url = new URL(request.url ?? "", "http://pods");
    const [, name] = /^\/api\/v1\/namespaces\/fleet\/pods(?:\/([^/]+))?$/.exec(url.pathname) ?? [];
    if (request.method === "GET" && url.pathname.endsWith("/pods")) {
      state.lists++;
      const wanted = (url.searchParams.get("labelSelector") ?? "").split(",").map((part) => part.split("="));
      const has = (pod: StoredPod) =>
        wanted.every(([key = "", value]) => (value === undefined ? key in pod.metadata.labels : pod.metadata.labels[key] === value));
      return { code: 200, body: { kind: "PodList", items: [...pods.values()].filter(has) } };
    }
    if (request.method === "POST") {
      if (state.refuse !== null) return status(403, state.refuse);
      const pod = JSON.parse(await text(request)) as StoredPod;
      pod.metadata.creationTimestamp = new Date(Math.floor(Date.now() / 1000) * 1000).toISOString();
      pod.status = { phase: "Pending" };
      pods.set(pod.metadata.name, pod);
      state.created.push(pod.metadata.name);
      options.created?.(pod);
      return { code: 201, body: pod };
    }
    const pod = pods.get(name ?? "");
    if (request.method !== "DELETE" || !pod) return status(404, `pods "${name ?? ""}" not found`);
    pods.delete(pod.metadata.name);
    options.deleted?.(pod);
    return { code: 200, body: pod };
  };
  const server = createServer((request, response) => {
    void answer(request).then(({ code, body }) =>
      response.writeHead(code, { "content-type": "application/json" }).end(JSON.stringify(body)),
    );
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    pods,
    state,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
