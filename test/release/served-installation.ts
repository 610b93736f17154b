import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeTinyInstallation } from "../kit/tiny-stack.ts";

/** The tiny installation, whose stack is a real server of a few lines that any C++ compiler builds. */
export function writeServedInstallation(root: string): void {
  writeTinyInstallation(root);
  const stack = join(root, "stacks/tiny");
  mkdirSync(join(stack, "core"));
  cpSync(join(import.meta.dirname, "tiny-server.cpp"), join(stack, "core/server.cpp"));
  writeFileSync(join(stack, "build.sh"), '#!/bin/sh\n# Usage: build.sh CXX OUT\nset -eu\n$1 -O1 -o "$2" core/server.cpp\n');
  writeFileSync(
    join(stack, "stack.json"),
    JSON.stringify({
      v: 1,
      kind: "stack",
      name: "tiny's own",
      build: ["sh", "build.sh", "${CXX}", "${OUT}"],
      serve: ["${OUT}", "--socket", "${SOCKET}", "--model", "${MODEL}", "--cpus", "${CPUS}"],
      dialect: "openai",
      features: ["chat"],
    }),
  );
}
