// Several agents' artifact stores in one process, for measuring: `fetch-child.ts URL DIGEST BYTES FOLDER ID…`, the seed of each in FOLDER/<id>.nk. Says "ready",
// fetches when it is told anything on its channel, and says {bytes: what came over its connections, seconds}. Ends with its parent.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { connect, nkeyAuthenticator } from "@nats-io/transport-node";
import { inbox } from "@vibeserve/shared";
import { ContentCache } from "./content-cache.ts";
import { ObjectArtifacts } from "./object-artifacts.ts";

const [url = "", digest = "", bytes = "", folder = "", ...ids] = process.argv.slice(2);
process.once("disconnect", () => process.exit(0));
const agents = await Promise.all(
  ids.map(async (id) => {
    const authenticator = nkeyAuthenticator(readFileSync(join(folder, `${id}.nk`)));
    const nc = await connect({ servers: url, name: id, authenticator, inboxPrefix: inbox(id) });
    return { nc, artifacts: new ObjectArtifacts(nc, new ContentCache(join(folder, id))) };
  }),
);
process.once("message", () => {
  const before = agents.reduce((sum, { nc }) => sum + nc.stats().inBytes, 0);
  const from = performance.now();
  const ref = { digest, bytes: Number(bytes) };
  // Twice at once: what is on its way is not fetched again.
  void Promise.all(agents.flatMap(({ artifacts }) => [artifacts.getFile(ref), artifacts.getFile(ref)])).then(() => {
    const received = agents.reduce((sum, { nc }) => sum + nc.stats().inBytes, 0) - before;
    process.send?.({ bytes: received, seconds: (performance.now() - from) / 1000 });
  });
});
process.send?.("ready");
