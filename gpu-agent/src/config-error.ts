/** Bad configuration: printed as it is, exit code 2. */
export class ConfigError extends Error {
  readonly exitCode: 0 | 2;
  constructor(message: string, exitCode: 0 | 2 = 2) {
    super(message);
    this.name = "ConfigError";
    this.exitCode = exitCode;
  }
}
