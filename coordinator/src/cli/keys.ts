import { resolve } from "node:path";
import { inClusterApi } from "../config.ts";
import { keyFiles } from "../broker/cluster/key-files.ts";
import { makeKeys, type KeyStore } from "../broker/cluster/key-folders.ts";
import { keySecrets } from "../broker/cluster/key-secrets.ts";
import { CliError, EXIT } from "./exit.ts";
import type { Invocation } from "./invocation.ts";

export interface KeysOptions {
  out?: string;
  kubernetesSecrets?: string;
  namespace?: string;
  hosts?: string;
  advertise?: string;
  resolverDir: string;
}

/** Makes once what a NATS cluster, its coordinator, its agents and its people need to trust each other; run again it makes what is missing. */
export async function keys({ output }: Pick<Invocation, "output">, options: KeysOptions): Promise<void> {
  const store = storeOf(options);
  const list = (text: string | undefined) => (text === undefined ? null : text.split(","));
  const { hosts, advertise, resolverDir } = options;
  const { keys: made, made: folders } = await makeKeys(store, { hosts: list(hosts), advertise: list(advertise), resolverDir });
  const places = (["server", "coordinator", "join", "client"] as const).map((folder) => ({
    ...{ folder, place: store.nameOf(folder), made: folders.includes(folder) },
  }));
  output.answer(
    { v: 1, kind: "keys", hosts: made.hosts, servers: made.servers, folders: places },
    places.map(({ place, made: isNew }) => `${isNew ? "made" : "kept"}  ${place}`).join("\n"),
  );
}

function storeOf({ out, kubernetesSecrets, namespace }: KeysOptions): KeyStore {
  if ((out === undefined) === (kubernetesSecrets === undefined))
    throw new CliError(EXIT.badInput, "say where keys go: --out DIR, or --kubernetes-secrets PREFIX");
  if (out !== undefined) return keyFiles(resolve(out));
  return keySecrets({ ...inClusterApi(namespace), prefix: kubernetesSecrets ?? "" });
}
