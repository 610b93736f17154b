/**
 * A step of the set-up that failed for a reason outside the program. `step` names it as the log does, `detail` says what was found (with
 * the values), `fix` what the user can do. Callers print `report()` and end with exit code 2.
 */
export class SetupError extends Error {
  readonly step: string;
  readonly detail: string;
  readonly fix: string;

  constructor(step: string, detail: string, fix: string, options?: ErrorOptions) {
    super(`${step}: ${detail} (fix: ${fix})`, options);
    this.name = "SetupError";
    this.step = step;
    this.detail = detail;
    this.fix = fix;
  }

  report(): string {
    return `set-up failed at ${this.step}: ${this.detail}\n  fix: ${this.fix}`;
  }
}
