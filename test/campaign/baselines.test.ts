import type { Target } from "@vibeserve/shared";
import { expect, test } from "vitest";
import { fold } from "../../coordinator/src/campaign/campaign.machine.ts";
import { agent, device, target, World } from "./world.ts";

type Engines = Target["baselines"];

/** What a campaign compares with, once a device is bound whose agent has these engines installed (undefined: it does not say). */
function compared(listed: Engines, asked: Engines, engines?: string[]): string[] {
  const [created] = new World([], { target: { ...target, baselines: listed } }).events;
  if (created?.fact.type !== "campaign.created") throw new Error("a campaign begins with its creation");
  const options = { ...created.fact.options, baselines: asked };
  const c = fold(null, { ...created, fact: { ...created.fact, options } });
  const bound = { type: "device.bound" as const, agent: { ...agent, ...(engines && { engines }) }, device };
  return fold(c, { ...created, seq: 2, fact: bound }).options.baselines;
}

test("the target's baselines are compared with, and what the agent has installed already", () => {
  expect(compared(["openvino-genai"], ["openvino-genai"])).toEqual(["openvino-genai"]);
  expect(compared(["openvino-genai"], ["openvino-genai"], [])).toEqual(["openvino-genai"]);
  expect(compared(["openvino-genai"], ["openvino-genai"], ["openvino-genai", "llama.cpp"])).toEqual(["openvino-genai", "llama.cpp"]);
});

test("those that were asked for are compared with and no others, or none", () => {
  expect(compared(["openvino-genai"], ["llama.cpp"], ["openvino-genai", "llama.cpp"])).toEqual(["llama.cpp"]);
  expect(compared(["openvino-genai"], [], ["llama.cpp"])).toEqual([]);
});
