import { posix } from "node:path";
import { SEAMS, type Bindings } from "@vibeserve/shared";
import { bindingPath, type Catalog } from "./catalog.ts";

/** The seed's binding of every seam. The name stands for the seed's file of that seam, whatever language the stack is written in. */
export const seedBindings = (): Bindings => Object.fromEntries(SEAMS.map((seam) => [seam, seedOf(seam)]));

/**
 * Binds a skill's code on top of `base`. A file that owned several seams and loses one of them is unbound from the others too: those fall back
 * to the seed. Throws when the skill has no binding in this catalog.
 */
export function applySkill(catalog: Catalog, base: Bindings, id: string): Bindings {
  const skill = catalog.skills.get(id)?.skill;
  const path = skill ? bindingPath(skill) : null;
  if (!skill || path === null) throw new Error(`skill ${id} has no binding for stack ${catalog.stack}`);
  const replaced = new Set(skill.seams.map((seam) => base[seam]));
  const next: Bindings = {};
  for (const seam of SEAMS)
    next[seam] = skill.seams.includes(seam) ? path : replaced.has(base[seam]) ? seedOf(seam) : (base[seam] ?? seedOf(seam));
  return next;
}

/** The skill whose binding is bound to a seam; null where the seed's is. */
export function skillAt(catalog: Catalog, bindings: Bindings, seam: string): string | null {
  for (const [id, { skill }] of catalog.skills) if (skill.seams.some((s) => s === seam) && bindingPath(skill) === bindings[seam]) return id;
  return null;
}

export function boundSkills(catalog: Catalog, bindings: Bindings): string[] {
  return [...new Set(SEAMS.map((seam) => skillAt(catalog, bindings, seam)).filter((id) => id !== null))];
}

const seedOf = (seam: string): string => `seed/${seam}.cpp`;

/** The seed's file of a seam; null where the stack has no such seam. */
const seedFile = (catalog: Catalog, seam: string): string | null =>
  [...catalog.files.keys()].find((path) => posix.dirname(path) === "seed" && posix.parse(path).name === seam) ?? null;

/** What is bound to a seam; null where the stack has no such seam. */
function fileOf(catalog: Catalog, bindings: Bindings, seam: (typeof SEAMS)[number]): string | null {
  const bound = bindings[seam] ?? seedOf(seam);
  return bound === seedOf(seam) ? seedFile(catalog, seam) : bound;
}

/** Other files of the stack that a source needs, relative to its folder: what C++ includes, and what Python says in lines `# needs: PATH`. */
function includes(path: string, bytes: Buffer): string[] {
  const pattern = /\.(h|hpp|cpp|inc)$/.test(path) ? /^\s*#\s*include\s+"([^"]+)"/gm : /\.py$/.test(path) ? /^# needs: (\S+)$/gm : null;
  return pattern === null ? [] : [...bytes.toString("utf8").matchAll(pattern)].flatMap(([, name]) => name ?? []);
}

const FIXED = /^(core|seams)\/|^[^/]+$/;

/**
 * The candidate's tree: the stack's core and seam headers, one file for each seam, and the headers that those include (followed textually). It
 * never holds a binding that it does not bind. isaBits: the target device's; they choose among the variants of a file.
 */
export function composeTree(catalog: Catalog, bindings: Bindings, isaBits: readonly string[]): Map<string, Buffer> {
  const tree = new Map<string, Buffer>();
  const add = (path: string, from: string): void => {
    if (tree.has(path)) return;
    const bytes = catalog.files.get(variant(catalog, path, isaBits));
    if (!bytes) throw new Error(`${from} needs ${path}, which stack ${catalog.stack} does not have`);
    tree.set(path, bytes);
    for (const name of includes(path, bytes)) add(posix.normalize(posix.join(posix.dirname(path), name)), path);
  };
  for (const path of catalog.files.keys()) if (FIXED.test(path) && !path.endsWith(".md")) add(path, "the stack");
  for (const seam of SEAMS) {
    const path = fileOf(catalog, bindings, seam);
    if (path !== null) add(path, `seam ${seam}`);
  }
  return tree;
}

/**
 * Binds skills' files in a tree that a model wrote on top of `from`: what `to` brings along or brings in another form is laid over it, what only `from` needed
 * goes. What the model changed of that stays, except for a seam's own file: a seam that is bound twice is bound to nothing.
 */
export function overlayTree(
  base: ReadonlyMap<string, Uint8Array>,
  catalog: Catalog,
  { from, to }: { from: Bindings; to: Bindings },
  isaBits: readonly string[],
): Map<string, Uint8Array> {
  const [before, after] = [composeTree(catalog, from, isaBits), composeTree(catalog, to, isaBits)];
  const tree = new Map(base);
  const seams = new Set(SEAMS.map((seam) => fileOf(catalog, from, seam)));
  for (const [path, bytes] of before)
    if (!after.has(path) && (seams.has(path) || bytes.equals(tree.get(path) ?? new Uint8Array()))) tree.delete(path);
  for (const [path, bytes] of after) if (!before.get(path)?.equals(bytes)) tree.set(path, bytes);
  return tree;
}

/**
 * `<name>-<variant>.h` whose first line is `// requires: BIT…` may stand in for `<name>.h`: of those whose bits the device all has, the one that
 * asks for most. A candidate is made for one device, so it need not carry, or compile, what another would use.
 */
function variant(catalog: Catalog, path: string, isaBits: readonly string[]): string {
  const { dir, name, ext } = posix.parse(path);
  let best = { path, bits: -1 };
  for (const [other, bytes] of catalog.files) {
    if (posix.dirname(other) !== dir || !other.startsWith(posix.join(dir, `${name}-`)) || !other.endsWith(ext)) continue;
    const required = /^\/\/ requires:(.*)/
      .exec(bytes.subarray(0, 400).toString("utf8"))?.[1]
      ?.split(/\s+/)
      .filter((bit) => bit !== "");
    if (required && required.length > best.bits && required.every((bit) => isaBits.includes(bit)))
      best = { path: other, bits: required.length };
  }
  return best.path;
}
