import type { CheckReport, Gate } from "@vibeserve/shared";
import { quote } from "./candidate-fault.ts";

export interface Example {
  readonly where: string;
  readonly candidate: string;
  readonly reference: string;
}

const MAX_GATES = 64;
const MAX_TEXT = 2000;

/** Collects gates. The first that fails keeps its example; a report is at most some 30 KB whatever the candidate says. */
export class Findings {
  readonly #gates: Gate[] = [];
  readonly #faults = new Map<string, string[]>();
  #first: CheckReport["firstFailure"] = null;
  positions = 0;
  servedTokens = 0;

  get ok(): boolean {
    return this.#gates.length > 0 && this.#gates.every((g) => g.ok) && this.#faults.size === 0;
  }

  gate(gate: Gate, example?: Example): void {
    if (!gate.ok) this.#fail(gate.name, example ?? { where: "", candidate: "", reference: "" });
    this.#gates.push({ ...gate, value: Number.isFinite(gate.value) ? gate.value : Number.MAX_VALUE });
  }

  /** Violations of a rule that is broken or kept: one gate with their number, written at the end. */
  rule(name: string, problems: readonly string[], where = "", reference = ""): void {
    const known = this.#faults.get(name) ?? [];
    if (problems[0] !== undefined) this.#fail(name, { where, candidate: problems[0], reference });
    this.#faults.set(name, [...known, ...problems]);
  }

  report(level: CheckReport["level"]): CheckReport {
    const rules = [...this.#faults].map(([name, problems]): Gate => ({
      name,
      value: problems.length,
      unit: "violations",
      limit: "0",
      ok: problems.length === 0,
    }));
    // Failed gates first, should there ever be too many.
    const gates = [...this.#gates, ...rules].sort((a, b) => Number(a.ok) - Number(b.ok)).slice(0, MAX_GATES);
    return {
      ok: gates.length > 0 && gates.every((g) => g.ok),
      level,
      gates,
      positions: this.positions,
      servedTokens: this.servedTokens,
      firstFailure: this.#first,
    };
  }

  #fail(gate: string, { where, candidate, reference }: Example): void {
    const clean = (text: string): string => quote(text, MAX_TEXT).slice(1, -1);
    this.#first ??= { gate, where: clean(where), candidate: clean(candidate), reference: clean(reference) };
  }
}
