import { readSetupConfig } from "./setup/config.ts";

/** Verbs that are scripts of a checkout's package.json, since a bare machine has nothing but npm. */
const SCRIPTS: Readonly<Record<string, string>> = { start: "npm start", serve: "npm run serve", "demo-fleet": "npm run demo:fleet" };

/**
 * What a person types here for a verb and its words: in an unpacked bundle or an image, which have no npm, `vibeserve <verb> …`; in a checkout `npx vibeserve
 * <verb> …`, or the npm script of that verb.
 */
export function commandLine(verb: string, words: readonly string[] = [], { bundle } = readSetupConfig()): string {
  if (bundle !== undefined) return ["vibeserve", verb, ...words].join(" ");
  const script = SCRIPTS[verb];
  if (script === undefined) return ["npx vibeserve", verb, ...words].join(" ");
  return words.length === 0 ? script : [script, "--", ...words].join(" ");
}
