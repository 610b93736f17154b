/** A prompt that does not fit its slots: a mistake in prompts/, found when the coordinator starts. */
export class PromptError extends Error {
  override readonly name = "PromptError";
}

/** Fills `{{slot}}`s; each of `slots` must stand in the text, and nothing else may. No logic: a prompt is text. */
export function fill(name: string, text: string, slots: Readonly<Record<string, string>>): string {
  const found = new Set([...text.matchAll(/\{\{([^}]*)\}\}/g)].map(([, slot]) => slot ?? ""));
  const unknown = [...found].filter((slot) => !(slot in slots));
  const unused = Object.keys(slots).filter((slot) => !found.has(slot));
  if (unknown.length > 0)
    throw new PromptError(`${name}: unknown slot {{${unknown.join("}}, {{")}}}; there are: ${Object.keys(slots).join(", ")}`);
  if (unused.length > 0) throw new PromptError(`${name}: has no slot {{${unused.join("}}, {{")}}}`);
  return text.replace(/\{\{([^}]*)\}\}/g, (_, slot: string) => slots[slot] ?? "");
}

/** Text that nobody here wrote (logs, names, replies), marked as data: it can't end its own fence. */
export const fenced = (name: string, text: string): string =>
  `<data name="${name}">\n${text.replace(/<(?=\s*\/\s*data)/gi, "<\\")}\n</data>`;

/** One line of text that a model or a provider wrote, for people: no control characters, so no terminal escapes. */
export const plain = (text: string): string => text.replace(/[\u0000-\u001f\u007f-\u009f\s]+/g, " ").trim();

/** The same, at most `chars` long. */
export const clipped = (text: string, chars: number): string => {
  const flat = plain(text);
  return flat.length > chars ? `${flat.slice(0, chars - 1)}…` : flat;
};

/** Words of others in a line of ours: without anything that looks like the border of a fence. */
export const inline = (text: string): string => text.replace(/<(?=\/?data)/gi, "‹");

/** The first lines that fit into so many bytes, line breaks counted. */
export function fitting(lines: readonly string[], bytes: number): string[] {
  let used = 0;
  const over = lines.findIndex((l) => (used += Buffer.byteLength(l) + 1) > bytes);
  return lines.slice(0, over < 0 ? lines.length : over);
}
