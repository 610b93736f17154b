import { jetstream } from "@nats-io/jetstream";
import { subjects } from "@vibeserve/shared";
import { expect, test, vi } from "vitest";
import { connectBus } from "../../coordinator/src/bus/connect.ts";
import { startCoordinator } from "../kit/real-coordinator.ts";
import { site } from "../kit/sites.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

vi.setConfig({ testTimeout: 120_000 });

test("a campaign whose log can't be read is listed with the reason, and keeps no other from running", async () => {
  using s = site();
  let healthy = "";
  {
    await using real = await startCoordinator(s.at.dir);
    healthy = (await real.coordinator.submit(tinyTarget, { baselines: [], repeat: null })).id;
    const { broker } = real.coordinator;
    const nc = await connectBus({ servers: [broker.url], seed: broker.seeds.coordinator, principal: "coordinator" });
    await jetstream(nc).publish(subjects.event("garbled"), "no event at all");
    await nc.close();
  }
  const up = s.at.run("up");
  await up.printed(/coordinator ready/);
  for (const verb of ["campaigns", "status"]) {
    const json = s.at.run(verb, "--json");
    expect(await json.ended).toBe(0);
    expect(JSON.parse(json.out())).toMatchObject({
      campaigns: [{ campaign: healthy, state: "waiting" }],
      unreadable: [{ campaign: "garbled", reason: expect.stringMatching(/vs\.event\.garbled/) as string }],
    });
    const text = s.at.run(verb);
    expect(await text.ended).toBe(0);
    expect(text.out()).toMatch(new RegExp(`${healthy} .*\n(.*\n)*campaign garbled can't be read and is not run: .*vs.event.garbled`));
  }
});
