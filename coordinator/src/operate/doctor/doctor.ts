import { commandLine } from "../../command-line.ts";
import { messageOf } from "../../process/message-of.ts";
import { BROKER } from "./broker.ts";
import { DATA_FOLDER } from "./data-folder.ts";
import { INSTALLATION } from "./installation.ts";
import { MACHINE } from "./machine.ts";
import { NETWORK } from "./network.ts";
import { STATE } from "./state.ts";
import { TLS } from "./tls.ts";
import type { Check, Finding, Patient } from "./check.ts";

export const CHECKS: readonly Check[] = [...INSTALLATION, ...DATA_FOLDER, ...TLS, ...BROKER, ...STATE, ...MACHINE, ...NETWORK];

export type Examined = Finding & { name: string; ms: number };

/** Looks at everything that this side has, in order; a check that itself fails is a failure with its words. */
export async function examine(at: Patient, said: (examined: Examined) => void = () => undefined): Promise<Examined[]> {
  const all: Examined[] = [];
  const mine: Check["on"][] = at.node ? ["node", "both"] : ["coordinator", "both"];
  for (const { name, on, look } of CHECKS) {
    if (!mine.includes(on)) continue;
    const startedAt = performance.now();
    const finding = await Promise.resolve()
      .then(() => look(at))
      .catch((error: unknown): Finding => ({
        status: "fail",
        saw: `this could not be looked at: ${messageOf(error)}`,
        fix: `tell us, with the output of ${commandLine("doctor", ["--json"])}`,
      }));
    const examined = { name, ...finding, ms: Math.round(performance.now() - startedAt) };
    all.push(examined);
    said(examined);
  }
  return all;
}
