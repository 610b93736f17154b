import { execFileSync } from "node:child_process";
import { expect, it } from "vitest";

it("tests and the processes that they start as `node` run under Node 24, whichever Node started vitest", () => {
  expect(process.versions.node).toMatch(/^24\./);
  expect(execFileSync("node", ["--version"], { encoding: "utf8" })).toMatch(/^v24\./);
});
