import { expect, it } from "vitest";
import { commandLine } from "../../coordinator/src/command-line.ts";
import { readSetupConfig } from "../../coordinator/src/setup/index.ts";

const checkout = readSetupConfig({});
const bundle = readSetupConfig({ VIBESERVE_BUNDLE: "/opt/vibeserve" });

it("a checkout's commands are npm's: a script where the verb has one, else npx", () => {
  expect(commandLine("start", [], checkout)).toBe("npm start");
  expect(commandLine("start", ["--resume", "--data", "d"], checkout)).toBe("npm start -- --resume --data d");
  expect(commandLine("serve", ["--data", "d"], checkout)).toBe("npm run serve -- --data d");
  expect(commandLine("submit", ["t.yaml"], checkout)).toBe("npx vibeserve submit t.yaml");
});

it("an unpacked bundle has no npm, and names its own command for every verb", () => {
  expect(commandLine("start", ["--resume"], bundle)).toBe("vibeserve start --resume");
  expect(commandLine("serve", [], bundle)).toBe("vibeserve serve");
  expect(commandLine("submit", ["t.yaml"], bundle)).toBe("vibeserve submit t.yaml");
});
