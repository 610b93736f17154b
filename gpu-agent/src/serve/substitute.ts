/** Replaces each placeholder wherever it stands in an argument; what a value contains is not looked at again. */
export function substitute(argv: readonly string[], values: Readonly<Record<string, string>>): string[] {
  return argv.map((arg) => arg.replace(/\$\{[A-Z]+\}/g, (name) => values[name] ?? name));
}
