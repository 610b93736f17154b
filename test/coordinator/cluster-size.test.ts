import { expect, test } from "vitest";
import { requireDurableCluster, unsettled } from "../../coordinator/src/broker/cluster/system.ts";

/** As three servers of nats-server 2.15.1 answered one after another when they were started together on a machine that was slow. */
const said = (name: string, peers: number, leader: string | null) => ({
  server: { id: name, name, version: "2.15.1" },
  data: { enabled: true, syncAlways: true, storeDir: "/data/jetstream", peers, leader },
  error: null,
});
const choosing = [said("nats-0", 3, null), said("nats-1", 3, null), said("nats-2", 3, null)];
const justChosen = [said("nats-1", 3, "nats-0"), said("nats-2", 3, "nats-0"), said("nats-0", 2, "nats-0")];
const settled = [said("nats-2", 3, "nats-0"), said("nats-0", 3, "nats-0"), said("nats-1", 3, "nats-0")];

test("servers are taken at their word once they have a leader, and it counts as many as those that follow it", () => {
  expect(unsettled(choosing)).toMatch(/nats-0 knows no leader/);
  expect(unsettled(justChosen)).toMatch(/nats-0 counts 2 that store together, and nats-1 3/);
  expect(unsettled(settled)).toBeNull();
  // Only the leader answered in time, on a machine that was slower still.
  expect(unsettled(justChosen.slice(2), 3)).toMatch(/2 of the 3 servers that are named/);
  expect(unsettled(settled.slice(0, 1), 3)).toBeNull();
  expect(requireDurableCluster(settled, null)).toBe(3);
});

test("a server that stores for itself is another cluster, and is not waited for", () => {
  expect(unsettled([...settled, said("leaf", 1, "itself")])).toBeNull();
});
