import { apiServer, refusal } from "../kit/api-server.ts";

export interface StoredPod {
  metadata: { name: string; namespace: string; labels: Record<string, string>; creationTimestamp: string; deletionTimestamp?: string };
  spec: { containers: { name: string; env: { name: string; value: string }[] }[]; schedulingGates?: unknown[] };
  status: { phase: string; reason?: string; message?: string };
}

/** The three requests of an API server that worker pods make, with its status codes and its messages. What a kubelet would do, the test does to `pods`. */
export async function podServer(options: { created?: (pod: StoredPod) => void; deleted?: (pod: StoredPod) => void } = {}) {
  const pods = new Map<string, StoredPod>();
  const state = { refuse: null as string | null, created: [] as string[], lists: 0 };
  const server = await apiServer(({ method, path, body }) => {
    const url = new URL(path, "http://pods");
    const [, name] = /^\/api\/v1\/namespaces\/fleet\/pods(?:\/([^/]+))?$/.exec(url.pathname) ?? [];
    if (method === "GET" && url.pathname.endsWith("/pods")) {
      state.lists++;
      const wanted = (url.searchParams.get("labelSelector") ?? "").split(",").map((part) => part.split("="));
      const has = (pod: StoredPod) =>
        wanted.every(([key = "", value]) => (value === undefined ? key in pod.metadata.labels : pod.metadata.labels[key] === value));
      return [200, { kind: "PodList", items: [...pods.values()].filter(has) }];
    }
    if (method === "POST") {
      if (state.refuse !== null) return refusal(403, "Forbidden", state.refuse);
      const pod = body as StoredPod;
      pod.metadata.creationTimestamp = new Date(Math.floor(Date.now() / 1000) * 1000).toISOString();
      pod.status = { phase: "Pending" };
      pods.set(pod.metadata.name, pod);
      state.created.push(pod.metadata.name);
      options.created?.(pod);
      return [201, pod];
    }
    const pod = pods.get(name ?? "");
    if (method !== "DELETE" || !pod) return refusal(404, "NotFound", `pods "${name ?? ""}" not found`);
    pods.delete(pod.metadata.name);
    options.deleted?.(pod);
    return [200, pod];
  });
  return { ...server, pods, state };
}
