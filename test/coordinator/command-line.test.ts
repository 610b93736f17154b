import { execFileSync } from "node:child_process";
import { join } from "node:path";
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

it("an answer that a pipe does not hold arrives whole, however late it is read; who reads no more gets no complaint", () => {
  const root = join(import.meta.dirname, "../..");
  const ask = `"${process.execPath}" coordinator/src/main.ts skills --for targets/h100/chat.yaml --json`;
  const shell = (line: string) => execFileSync("/bin/sh", ["-c", line], { cwd: root, encoding: "utf8" });
  const whole = shell(`${ask} | (sleep 1; cat)`);
  expect(whole.length).toBeGreaterThan(65_536);
  expect(JSON.parse(whole)).toMatchObject({ v: 1 });
  expect(shell(`(${ask} | head -c 10) 2>&1`)).toBe(whole.slice(0, 10));
});
