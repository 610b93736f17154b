import type { ArmRole, Measurement } from "@vibeserve/shared";
import type { z } from "zod";
import type { Dialect } from "../../loadgen/event.ts";
import type { RunningStack } from "../serve/running-stack.ts";

export type Side = "challenger" | "champion";

/** A started arm, and what its measurement says of it. */
export interface BenchArm {
  readonly role: z.infer<typeof ArmRole>;
  readonly stack: RunningStack;
  readonly dialect: Dialect;
  readonly treeDigest: string | null;
  readonly buildDigest: string | null;
  readonly engine: Measurement["engine"];
}

/** ABBA: pair 0 runs challenger, champion; pair 1 champion, challenger; and so on, so that a linear drift of the machine cancels. */
export function pairOrder(pair: number): readonly [Side, Side] {
  return pair % 2 === 0 ? ["challenger", "champion"] : ["champion", "challenger"];
}

export const otherSide = (side: Side): Side => (side === "challenger" ? "champion" : "challenger");
