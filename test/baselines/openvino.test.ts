import { existsSync } from "node:fs";
import { test } from "vitest";
import { ENGINE, enginePython, WEIGHTS } from "./kit.ts";
import { describeRealServer } from "./real-server.ts";

// The engine itself, where an agent has installed it; test/slow/baselines installs it.
const python = enginePython();
const missing = [...(python ? [] : [`${ENGINE}*/venv`]), ...(existsSync(WEIGHTS) ? [] : [WEIGHTS])];

if (python !== null && missing.length === 0) describeRealServer(() => python, WEIGHTS);
else {
  const reason = `${missing.join(" and ")} missing; npm run test:slow installs what is`;
  test(`the contract against OpenVINO GenAI itself (skipped: ${reason})`, (t) => t.skip(reason));
}
