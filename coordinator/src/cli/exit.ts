/** Exit codes of every verb. */
export const EXIT = {
  done: 0,
  /** The answer is no: not proven, cancelled, failed, conflict. */
  negative: 1,
  badInput: 2,
  /** No coordinator answers. */
  unreachable: 3,
} as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** Ends the command with this code and this message; anything else that is thrown is a bug. */
export class CliError extends Error {
  readonly exitCode: ExitCode;
  constructor(exitCode: ExitCode, message: string) {
    super(message);
    this.name = "CliError";
    this.exitCode = exitCode;
  }
}
