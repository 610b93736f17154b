import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { Objm } from "@nats-io/obj";
import { PermissionViolationError, type Msg, type NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ArtifactStore } from "../../coordinator/src/artifact/artifact-store.ts";
import type { BrokerInUse } from "./real-broker.ts";
import { tempDir } from "./temp-dir.ts";

/** Who may do what on the broker (permissions.ts), whoever runs it. */
export function permissionCases(start: (dir: string) => Promise<BrokerInUse>): void {
  const dir = tempDir("permissions");
  let real: BrokerInUse;
  let agent: NatsConnection;
  let client: NatsConnection;

  beforeAll(async () => {
    real = await start(dir.path);
    agent = await real.connectAgent("a1", await real.enroll("a1"));
    await real.enroll("a2");
    client = await real.connectClient();
  });

  afterAll(async () => {
    await real[Symbol.asyncDispose]();
    dir[Symbol.dispose]();
  });

  /** What the broker answers to a publish: the violation, or null when it let it pass. */
  async function publishRefused(nc: NatsConnection, subject: string): Promise<string | null> {
    const refused = new Promise<string>((resolve) => {
      void (async () => {
        for await (const status of nc.status())
          if (status.type === "error" && status.error instanceof PermissionViolationError && status.error.operation === "publish")
            resolve(status.error.subject);
      })();
    });
    nc.publish(subject, "x");
    await nc.flush();
    return Promise.race([refused, nc.flush().then(() => null)]);
  }

  async function subscribeRefused(nc: NatsConnection, subject: string): Promise<boolean> {
    return new Promise<boolean>((resolve) => {
      nc.subscribe(subject, { callback: (error) => resolve(error instanceof PermissionViolationError) });
      void nc
        .flush()
        .then(() => nc.flush())
        .then(() => resolve(false));
    });
  }

  describe("an agent", () => {
    test.each([
      "vs.result.a1.c1",
      "vs.progress.a1.j1",
      "vs.beat.a1",
      "$KV.vs-agents.a1.info",
      "$JS.API.DIRECT.GET.KV_vs-leases.$KV.vs-leases.a1.a1-cpu",
    ])("may publish %s", async (subject) => {
      expect(await publishRefused(agent, subject)).toBeNull();
    });

    test.each([
      ["another's result", "vs.result.a2.c1"],
      ["another's progress", "vs.progress.a2.j1"],
      ["another's beat", "vs.beat.a2"],
      ["another's registration", "$KV.vs-agents.a2.info"],
      ["an assignment of its own", "$KV.vs-leases.a1.a1-cpu"],
      ["another's assignment", "$KV.vs-leases.a2.a2-cpu"],
      ["what the broker says of an assignment", "vs.assign.a1.a1-cpu"],
      ["an event", "vs.event.c1"],
      ["an approval of itself", "vs.api.agent-decide"],
      ["a question to join", "vs.join"],
      ["a request for an event", "$JS.API.DIRECT.GET.VS_EVENTS.vs.event.c1"],
      ["a request for a stored event", "$JS.API.STREAM.MSG.GET.VS_EVENTS"],
      ["a consumer on events", "$JS.API.CONSUMER.CREATE.VS_EVENTS.mine"],
      ["a request for another's result", "$JS.API.STREAM.MSG.GET.VS_RESULTS"],
      ["a request for another's registration", "$JS.API.DIRECT.GET.KV_vs-agents.$KV.vs-agents.a2.info"],
      ["a verb", "vs.api.cancel"],
      ["a live event", "vs.live.c1"],
      ["into another's inbox", "_INBOX_a2.x"],
      ["into the coordinator's inbox", "_INBOX_coordinator.x"],
      ["the deletion of an artifact", "$JS.API.STREAM.PURGE.OBJ_vs-artifacts"],
      ["an artifact's chunks under another's subject", "$O.vs-artifacts.C.a2.x"],
      ["a name for another's chunks", "vs.artifact.a2.x"],
      ["a second registration", "$KV.vs-agents.a1.more"],
      ["the deletion of the event log", "$JS.API.STREAM.DELETE.VS_EVENTS"],
      ["a question for another's assignment", "$JS.API.DIRECT.GET.KV_vs-leases.$KV.vs-leases.a2.a2-cpu"],
      ["a question for any assignment", "$JS.API.DIRECT.GET.KV_vs-leases"],
      ["a consumer on assignments", "$JS.API.CONSUMER.CREATE.KV_vs-leases.mine"],
      ["a consumer on results", "$JS.API.CONSUMER.CREATE.VS_RESULTS.mine"],
      ["the roll call", "vs.roll"],
      ["an acknowledgement of results", "$JS.ACK.VS_RESULTS.coordinator.1.1.1.1.1"],
      ["a question to the server", "$SYS.REQ.SERVER.PING"],
    ])("is refused when it publishes %s", async (_what, subject) => {
      expect(await publishRefused(agent, subject)).toBe(subject);
    });

    test.each([
      "_INBOX_a2.>",
      "_INBOX_coordinator.>",
      "_INBOX.>",
      "vs.agent.a2.>",
      "vs.result.>",
      "vs.event.>",
      "vs.assign.a2.>",
      "vs.assign.>",
      "vs.api.>",
      "vs.join",
      "vs.job.>",
      "$KV.>",
      "$JS.>",
      ">",
    ])("can't listen on %s", async (subject) => {
      expect(await subscribeRefused(agent, subject)).toBe(true);
    });

    test("can register, read and write artifacts, and hears of what it is assigned once that is stored, with its sequence", async () => {
      await (await new Kvm(agent).open("vs-agents")).put("a1.info", "here");
      const bytes = Buffer.alloc(300_000, 7);
      const ref = await (await ArtifactStore.open(agent)).put(bytes);
      expect(Buffer.compare(await (await ArtifactStore.open(real.bus.nc)).get(ref.digest), bytes)).toBe(0);
      const heard = new Promise<Msg>((resolve) => agent.subscribe("vs.assign.a1.*", { callback: (_error, message) => resolve(message) }));
      await agent.flush();
      const { seq } = await real.bus.js.publish("$KV.vs-leases.a1.a1-cpu", "work");
      await real.bus.js.publish("$KV.vs-leases.a2.a2-cpu", "another's");
      const message = await heard;
      expect([message.subject, message.string(), message.headers?.get("Nats-Sequence")]).toEqual([
        "vs.assign.a1.a1-cpu",
        "work",
        String(seq),
      ]);
      const jsm = await jetstreamManager(agent, { checkAPI: false });
      const stored = await jsm.direct.getMessage("KV_vs-leases", { last_by_subj: "$KV.vs-leases.a1.a1-cpu" });
      expect([stored?.string(), stored?.seq]).toEqual(["work", seq]);
    });

    test("hears the roll call", async () => {
      const called = new Promise<string>((resolve) =>
        agent.subscribe("vs.roll", { callback: (_error, message) => resolve(message.subject) }),
      );
      await agent.flush();
      real.bus.nc.publish("vs.roll");
      expect(await called).toBe("vs.roll");
    });

    test("hears the orders that it is given, and none of another's", async () => {
      const heard = new Promise<string[]>((resolve) => {
        const orders: string[] = [];
        agent.subscribe("vs.agent.a1.*", {
          callback: (_error, message) => (orders.push(message.subject) === 2 ? resolve(orders) : undefined),
        });
      });
      await agent.flush();
      for (const order of ["a1.revoke", "a2.drain", "a1.drain"]) real.bus.nc.publish(`vs.agent.${order}`);
      expect(await heard).toEqual(["vs.agent.a1.revoke", "vs.agent.a1.drain"]);
    });

    test("is caught when it stores bytes under the digest of others", async () => {
      const digest = "ab".repeat(32);
      const store = await new Objm(agent).open("vs-artifacts");
      await expect(store.putBlob({ name: digest }, Buffer.from("forged"))).rejects.toThrow();
      await expect((await ArtifactStore.open(real.bus.nc)).get(digest)).rejects.toThrow(/no artifact/);
    });
  });

  test("an answer can't be made to land where its asker may not publish", async () => {
    const seen: string[] = [];
    for (const subject of ["vs.assign.>", "vs.agent.>", "vs.event.>", "vs.api.>", "$KV.>", "_INBOX_coordinator.x", "_INBOX_a2.>"])
      real.bus.nc.subscribe(subject, { callback: (_error, message) => void seen.push(message.subject) });
    const before = (await real.bus.jsm.streams.info("VS_EVENTS")).state.messages;
    await jetstream(agent).publish("$O.vs-artifacts.C.forged", "forged");
    for (const reply of [
      "vs.assign.a2.a2-cpu",
      "vs.agent.a2.revoke",
      "vs.event.c1",
      "vs.api.cancel",
      "$KV.vs-leases.a1.a1-cpu",
      "$KV.vs-agents.a2.info",
      "_INBOX_coordinator.x",
    ]) {
      // A stored message is sent to the reply address word for word; so is the acknowledgement of a publish.
      agent.publish("$JS.API.DIRECT.GET.OBJ_vs-artifacts", JSON.stringify({ last_by_subj: "$O.vs-artifacts.C.a1.forged" }), { reply });
      agent.publish("vs.result.a1.c1", "x", { reply });
    }
    await agent.flush();
    // Requests of one connection are served in order, so an answer to this one means that those before it were served.
    await jetstream(agent).publish("vs.result.a1.c1", "last");
    await real.bus.nc.flush();
    expect(seen).toEqual([]);
    expect((await real.bus.jsm.streams.info("VS_EVENTS")).state.messages).toBe(before);
  });

  describe("a client", () => {
    test.each(["vs.event.c1", "vs.result.a1.c1", "vs.beat.a1", "$KV.vs-leases.a1.a1-cpu", "$JS.API.INFO", "_INBOX_coordinator.x"])(
      "is refused when it publishes %s",
      async (subject) => {
        expect(await publishRefused(client, subject)).toBe(subject);
      },
    );

    test("may ask and watch, but not read others' replies", async () => {
      expect(await publishRefused(client, "vs.api.submit")).toBeNull();
      expect(await subscribeRefused(client, "vs.live.>")).toBe(false);
      expect(await subscribeRefused(client, "vs.progress.>")).toBe(false);
      expect(await subscribeRefused(client, "_INBOX_coordinator.>")).toBe(true);
      expect(await subscribeRefused(client, "vs.event.>")).toBe(true);
    });
  });

  describe("a joiner", () => {
    let joiner: NatsConnection;
    beforeAll(async () => {
      joiner = await real.connectJoiner();
    });

    test.each([
      "vs.api.agents",
      "vs.api.agent-decide",
      "vs.result.a1.c1",
      "vs.event.c1",
      "$KV.vs-agents.a1.info",
      "$JS.API.INFO",
      "_INBOX_coordinator.x",
      "_INBOX_a1.x",
      "$SYS.REQ.SERVER.PING",
    ])("is refused when it publishes %s", async (subject) => {
      expect(await publishRefused(joiner, subject)).toBe(subject);
    });

    test.each(["vs.join", "vs.>", "_INBOX_a1.>", "_INBOX_client.>", ">"])("can't listen on %s", async (subject) => {
      expect(await subscribeRefused(joiner, subject)).toBe(true);
    });

    test("may ask to join, and have the answer sent only where joiners hear", async () => {
      const heard: string[] = [];
      for (const subject of ["vs.event.>", "vs.api.>", "_INBOX_a1.>"])
        real.bus.nc.subscribe(subject, { callback: (_error, message) => void heard.push(message.subject) });
      real.bus.nc.subscribe("vs.join", { callback: (_error, message) => void message.respond("heard") });
      await real.bus.nc.flush();
      for (const reply of ["vs.event.c1", "vs.api.cancel", "_INBOX_a1.x"]) joiner.publish("vs.join", "", { reply });
      expect((await joiner.request("vs.join", "", { timeout: 2_000 })).string()).toBe("heard");
      await real.bus.nc.flush();
      expect(heard).toEqual([]);
    });

    test("can't send what is larger than a question", async () => {
      expect(() => joiner.publish("vs.join", new Uint8Array(300 * 1024))).toThrow(/max_payload/);
    });
  });
}
