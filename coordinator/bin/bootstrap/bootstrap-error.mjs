/** A step of the set-up that failed for a reason outside the program, with what the user can do about it. */
export class BootstrapError extends Error {
  constructor(step, detail, fix) {
    super(`${step}: ${detail}`);
    this.name = "BootstrapError";
    this.step = step;
    this.detail = detail;
    this.fix = fix;
  }

  /** The lines to print. The form is SetupError's, of coordinator/src/setup. */
  report() {
    return `set-up failed at ${this.step}: ${this.detail}\n  fix: ${this.fix}`;
  }
}
