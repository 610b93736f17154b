import type { Job, Outcome } from "@vibeserve/shared";
import { sha256 } from "@vibeserve/shared";
import { find, leader } from "../../coordinator/src/campaign/campaign.machine.ts";
import type { Effect } from "../../coordinator/src/campaign/effect.ts";
import { FINAL, type CallAt, type SessionRole } from "../../coordinator/src/campaign/session.ts";
import { target, World } from "./world.ts";

/** Draws among outcomes: an index below n. */
export type Draw = (n: number) => number;

const TOOLS: Readonly<Record<SessionRole, readonly string[]>> = {
  implementer: ["read", "write", "nonsense", "build", "check", "bench_quick", "profile", "run", "submit", "submit"],
  judge: ["read", "verdict"],
  evaluator: ["diff", "assess"],
};

/** A world in which models plan, write, judge and evaluate, each outcome drawn; jobs too may fail. Nothing else is simulated: the machine is the real one. */
export class ModelWorld extends World {
  readonly #draw: Draw;
  /** Ids of effects in the order in which they were performed. */
  readonly performed: string[] = [];

  constructor(draw: Draw, experiments: number) {
    super([], { target: { ...target, agent: "anthropic", bindings: "none", budget: { ...target.budget, experiments, usd: 1_000 } } });
    this.#draw = draw;
  }

  override perform(effect: Effect): void {
    this.performed.push(effect.id);
    switch (effect.type) {
      case "plan": {
        this.#plan(effect.id);
        return;
      }
      case "turn": {
        this.#turn(effect);
        return;
      }
      case "prepare": {
        this.#prepare(effect.experimentId, effect.call);
        return;
      }
      case "conclude": {
        this.#conclude(effect.experimentId, effect.call);
        return;
      }
      default: {
        super.perform(effect);
        return;
      }
    }
  }

  override answer(job: Job): Outcome {
    const own = job.experiment !== "seed" && job.spec.kind !== "exec" && this.#draw(6) === 0;
    if (!own) return job.spec.kind === "bench" ? this.#measured(super.answer(job)) : super.answer(job);
    const attribution = (["candidate", "harness", "device"] as const)[this.#draw(3)] ?? "candidate";
    return { status: "failed", failure: { attribution, code: "drawn", message: "drawn", logTail: "" } };
  }

  /** The ratio is drawn: clearly better, inside the noise, clearly worse. */
  #measured(outcome: Outcome): Outcome {
    if (outcome.status !== "measured") return outcome;
    const point = [1.5, 1.001, 0.7][this.#draw(3)] ?? 1;
    const comparison = { ...outcome.comparison, point, lo: point * 0.98, hi: point * 1.02 };
    return { ...outcome, comparison };
  }

  #plan(id: string): void {
    const n = this.state.experiments.length + 1;
    if (n > this.state.target.budget.experiments || this.#draw(12) === 0) {
      this.append({ type: "search.ended", reason: `${id}: drawn` });
      return;
    }
    const issue = `planner-e${n}`;
    this.append({
      type: "backlog.filed",
      issues: [{ id: issue, title: issue, mechanism: "m", skills: [], expected: 1.2, filedBy: "planner" }],
    });
    const parents = this.state.leaders;
    const hypothesis = {
      claim: "c",
      mechanism: "m",
      expected: { metric: "output_tokens_per_second", ratio: 1.2 },
      activation: "a",
      falsification: "f",
      invariants: [],
      parent: parents[this.#draw(parents.length)] ?? leader(this.state),
      skills: [],
      passCriteria: ["p"],
    };
    this.append({ type: "experiment.proposed", experimentId: `e${n}`, issues: [issue], hypothesis, weighed: [], author: "model" });
  }

  #turn({ id, role, experimentId, draft, n }: Extract<Effect, { type: "turn" }>): void {
    const turnId = `${id}.1`;
    const model = { provider: "simulated", model: "simulated" };
    const digest = sha256(turnId);
    this.append({ type: "turn.requested", turnId, role, ...model, promptDigest: digest, reservedUsd: 1, of: { experimentId, draft, n } });
    const calls = Array.from({ length: this.#draw(4) }, (_, i) => {
      const tools = TOOLS[role];
      return { id: `c${i}`, tool: tools[this.#draw(tools.length)] ?? "read" };
    });
    const usage = { input: 1, output: 1, cacheRead: 0, cacheWrite: 0 };
    this.append({ type: "turn.settled", turnId, outcome: { status: "said", content: { digest, bytes: 1 }, calls, usage }, usd: 0.01 });
  }

  #prepare(experimentId: string, { key: call }: CallAt): void {
    const problem = this.#draw(8) === 0 ? "drawn" : null;
    this.append({ type: "call.prepared", experimentId, call, git: problem === null ? this.#git() : null, argv: null, problem });
  }

  #conclude(experimentId: string, call: CallAt): void {
    const x = find(this.state, experimentId);
    if (call.tool !== FINAL[call.role]) throw new Error(`concluded at ${call.tool}`);
    if (this.#draw(6) === 0) {
      this.append({ type: "call.prepared", experimentId, call: call.key, git: null, argv: null, problem: "drawn" });
      return;
    }
    if (call.role === "evaluator") {
      this.append({ type: "evaluation.recorded", experimentId, bottleneck: "b", mechanism: "ran", evidence: "e" });
      return;
    }
    if (call.role === "judge") {
      const review = { verdict: this.#draw(2) === 0 ? ("veto" as const) : ("pass" as const), reason: "drawn", findings: [] };
      this.append({ type: "review.recorded", experimentId, draft: call.draft, of: x?.git ? "candidate" : "abandonment", review });
      return;
    }
    this.append({ type: "call.prepared", experimentId, call: call.key, git: this.#git(), argv: null, problem: null });
    const declared = (["ready", "ready", "ready", "needs-debugging", "unsuitable"] as const)[this.#draw(5)] ?? "ready";
    const declaration = { declared, summary: "s", evidence: [], mechanism: this.#draw(2) === 0 ? "" : "m", nextStep: "" };
    this.append({ type: "experiment.declared", experimentId, call: call.key, declaration });
  }

  #git() {
    const digest = sha256(`tree ${this.events.length}`);
    return { commit: digest.slice(0, 40), treeDigest: digest.slice(0, 40), tree: { digest, bytes: 1 } };
  }
}
