import { z } from "zod";
import { apiServer, refusalOf, type ApiServerAccess } from "../kubernetes/api-server.ts";
import { CLASS_LABEL, OWNER_LABEL, type PodClasses } from "./pod-class.ts";
import type { PodSeen } from "./worker-pods.machine.ts";

/** A thousand pods with their status. */
const MAX_LIST_BYTES = 32 * 1024 * 1024;
const MAX_SAYS = 300;

const Pod = z.object({
  metadata: z.object({
    name: z.string(),
    creationTimestamp: z.iso.datetime(),
    deletionTimestamp: z.string().optional(),
    labels: z.record(z.string(), z.string()),
  }),
  spec: z.object({ schedulingGates: z.array(z.unknown()).optional() }),
  status: z.object({
    phase: z.string().default("Pending"),
    reason: z.string().optional(),
    message: z.string().optional(),
    conditions: z.array(z.object({ status: z.string(), reason: z.string().optional(), message: z.string().optional() })).optional(),
    containerStatuses: z
      .array(
        z.object({
          state: z.record(z.string(), z.object({ reason: z.string().optional(), message: z.string().optional() }).loose()).optional(),
        }),
      )
      .optional(),
  }),
});
type Pod = z.infer<typeof Pod>;
const PodList = z.object({ items: z.array(Pod) });

/** The three requests that worker pods need, with a service account's rights to create, list and delete pods of one namespace. Each rejects with what the API server said. */
export interface PodApi {
  list(): Promise<Omit<PodSeen, "registered">[]>;
  create(pod: unknown): Promise<void>;
  /** One that is not there is deleted already. */
  remove(name: string): Promise<void>;
}

/** @param server URL of the API server, such as https://kubernetes.default.svc */
export function podApi(server: string, access: ApiServerAccess, { owner, namespace }: PodClasses): PodApi {
  const pods = `${server}/api/v1/namespaces/${namespace}/pods`;
  const request = apiServer(access, MAX_LIST_BYTES);
  const ask = async (url: string, method: string, body?: unknown, mayLack = false): Promise<unknown> => {
    const answer = await request(url, body, method);
    if (answer.ok || (mayLack && answer.status === 404)) return answer.json();
    throw new Error(`the API server answered ${method} pods with ${answer.status}: ${await refusalOf(answer, MAX_SAYS)}`);
  };
  return {
    list: async () => {
      const selector = encodeURIComponent(`${OWNER_LABEL}=${owner},${CLASS_LABEL}`);
      return PodList.parse(await ask(`${pods}?labelSelector=${selector}`, "GET")).items.map(seen);
    },
    create: async (pod) => {
      await ask(pods, "POST", pod);
    },
    remove: async (name) => {
      await ask(`${pods}/${name}`, "DELETE", undefined, true);
    },
  };
}

const PHASES: Partial<Record<string, PodSeen["phase"]>> = { Running: "running", Succeeded: "succeeded", Failed: "failed" };

function seen({ metadata, spec, status }: Pod): Omit<PodSeen, "registered"> {
  const gated = (spec.schedulingGates ?? []).length > 0;
  const phase = metadata.deletionTimestamp === undefined ? (PHASES[status.phase] ?? (gated ? "gated" : "pending")) : "leaving";
  const { name, labels, creationTimestamp } = metadata;
  return { name, podClass: labels[CLASS_LABEL] ?? "", createdAt: Date.parse(creationTimestamp), phase, says: says(status) };
}

/** Why it does not run: its own reason, else its containers', else the conditions that do not hold. */
function says({ reason, message, containerStatuses = [], conditions = [] }: Pod["status"]): string {
  const states = containerStatuses.flatMap(({ state = {} }) =>
    Object.entries(state).flatMap(([kind, s]) => (kind === "running" ? [] : [s])),
  );
  const all = [{ reason, message }, ...states, ...conditions.filter((c) => c.status === "False")];
  const found = all.find((s) => s.reason !== undefined || s.message !== undefined);
  return found
    ? [found.reason, found.message]
        .filter((part) => part !== undefined)
        .join(": ")
        .slice(0, MAX_SAYS)
    : "";
}
