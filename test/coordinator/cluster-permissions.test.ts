import { startClusterBroker } from "../kit/nats-cluster.ts";
import { permissionCases } from "../kit/permission-cases.ts";

// One server: what claims allow is the same on each. What only several can show is in cluster.test.ts.
permissionCases((dir) => startClusterBroker(dir, 1));
