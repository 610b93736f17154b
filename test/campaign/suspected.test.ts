import { expect, test } from "vitest";
import { pending } from "../../coordinator/src/campaign/campaign.machine.ts";
import { World } from "./world.ts";

const skills = [
  { id: "q4", seam: "linear" as const, stated: 9, truth: 10 },
  { id: "pool", seam: "threading" as const, stated: 2, truth: 1.9 },
];

/** Runs until the step's job of an experiment is answered. */
function until(world: World, step: string): string {
  for (let i = 0; i < 500; i++) {
    const found = Object.values(world.state.ledger).find((e) => e.id.endsWith(`_${step}`) && e.status === "over");
    if (found) return found.id;
    const [effect] = pending(world.state);
    if (!effect) break;
    world.perform(effect);
  }
  throw new Error(`no ${step} was answered`);
}

const suspected = (jobs: string[]) => ({
  type: "results.suspected" as const,
  deviceId: "sim-0",
  since: null,
  jobs,
  why: "its canary drifted",
});

test("a crowning under way is measured again when its device comes under suspicion, and only then the leader is crowned", () => {
  const world = new World(skills);
  const crown = until(world, "crown");
  world.append(suspected([crown]));
  expect(world.state.ledger[crown]).toMatchObject({ status: "again", avoid: ["sim-0"] });
  expect(pending(world.state)).toMatchObject([{ type: "dispatch", job: { id: crown, attempt: 2 } }]);
  const end = world.run();
  expect(end.ended?.outcome).toBe("proven");
  expect(end.ledger[crown]).toMatchObject({ status: "over", attempt: 2 });
});

test("what is settled stays settled, and neither the seed's answers nor those of a crowned champion are asked again", () => {
  const world = new World(skills);
  const crown = until(world, "repeat").replace("repeat", "crown");
  const settled = world.state.experiments.filter((x) => x.settled).map((x) => `sim_${x.id}_screen`);
  expect(settled.length).toBeGreaterThan(0);
  world.append(suspected([...settled, "sim_seed_check", "nothing-known"]));
  for (const id of [...settled, "sim_seed_check"]) expect(world.state.ledger[id]?.status).toBe("over");
  for (let [effect] = pending(world.state); effect && world.state.champions.length === 0; [effect] = pending(world.state))
    world.perform(effect);
  world.append(suspected([crown]));
  expect(world.state.ledger[crown]).toMatchObject({ status: "over", attempt: 1 });
  expect(world.run().ended?.outcome).toBe("proven");
});

test("the screening of an idea that is not settled is made again", () => {
  const world = new World(skills);
  const screen = until(world, "e1_screen");
  const before = world.state.experiments[0]?.settled;
  world.append(suspected([screen, screen.replace("screen", "check")]));
  expect(before).toBeNull();
  expect(world.state.ledger[screen]?.status).toBe("again");
  expect(pending(world.state)).toMatchObject([{ type: "dispatch", job: { id: screen.replace("screen", "check"), attempt: 2 } }]);
  expect(world.run().ended?.outcome).toBe("proven");
});
