import { Declaration, issuesOf, Review } from "@vibeserve/shared";
import { z } from "zod";
import type { SessionRole } from "../campaign/session.ts";
import type { ToolSpec } from "./conversation.ts";
import { ToolProblem, type Workspace } from "./workspace.ts";

const path = z.string().min(1).describe("path in the tree, such as core/engine.cpp");
const folder = z.string().default("").describe('folder in the tree; "" for all of it');

/** What a local tool works with. */
export interface Scope {
  workspace: Workspace;
  /** Body of a skill; null: there is none of this id, or it does not fit the target. */
  skill: (id: string) => string | null;
}

interface Tool {
  description: string;
  input: z.ZodObject;
  /** Absent: a job on the device, or the tool that ends the conversation. */
  run?: (input: never, scope: Scope) => string;
}

const local = <T extends z.ZodObject>(description: string, input: T, run: (input: z.infer<T>, scope: Scope) => string): Tool => ({
  description,
  input,
  run,
});

const READING = {
  list: local("Lists the files of the tree with their sizes in bytes.", z.strictObject({ folder }), (i, s) => s.workspace.list(i.folder)),
  search: local("Finds lines that hold a text, literally.", z.strictObject({ text: z.string(), folder }), (i, s) =>
    s.workspace.search(i.text, i.folder),
  ),
  read: local(
    "Reads numbered lines of a file, at most 400 at once.",
    z.strictObject({ path, first: z.int().min(1).default(1), count: z.int().min(1).max(400).default(400) }),
    (i, s) => s.workspace.read(i.path, i.first, i.count),
  ),
  diff: local(
    "Shows what the tree changes against its parent, as a unified diff; of one file, or of all.",
    z.strictObject({ path: z.string().nullable().default(null) }),
    (i, s) => s.workspace.diff(i.path),
  ),
};

const Nothing = z.strictObject({});
/** Stands in two events, each of which is a message. */
const ARGV_BYTES = 64_000;
export const RunInput = z.strictObject({
  argv: z
    .array(z.string().min(1).max(4_000))
    .min(1)
    .max(64)
    .refine((argv) => Buffer.byteLength(JSON.stringify(argv)) <= ARGV_BYTES, `more than ${ARGV_BYTES} bytes; write a file and run that`)
    .describe('such as ["sh", "-c", "g++ -O3 -march=native t.cpp -o /tmp/t && /tmp/t"]'),
});

/** What an implementer may do. The jobs run on the target's own device, on the tree as it stands. */
const IMPLEMENTER = {
  ...READING,
  write: local("Writes a whole file, new or in place of the old one.", z.strictObject({ path, content: z.string() }), (i, s) =>
    s.workspace.write(i.path, i.content),
  ),
  edit: local(
    "Replaces the one place in a file where `old` stands by `new`.",
    z.strictObject({ path, old: z.string(), new: z.string() }),
    (i, s) => s.workspace.edit(i.path, i.old, i.new),
  ),
  sync: local(
    "What an agent with hands of its own changed in its worktree.",
    z.strictObject({ files: z.record(z.string(), z.string().nullable()) }),
    (i, s) => s.workspace.apply(i.files),
  ),
  remove: local("Removes a file.", z.strictObject({ path }), (i, s) => s.workspace.remove(i.path)),
  skill: local("Reads a skill of the index in full.", z.strictObject({ id: z.string() }), (i, s) => {
    const body = s.skill(i.id);
    if (body === null) throw new ToolProblem(`id: there is no skill ${JSON.stringify(i.id.slice(0, 80))} in the index`);
    return body;
  }),
  build: { description: "Builds the tree on the device. Answers ok, or the compiler's errors, grouped.", input: Nothing },
  check: {
    description:
      "Builds, serves and judges the tree against the float32 reference on the public set: gates, and the first failure. Hidden positions judge what you hand in.",
    input: Nothing,
  },
  bench_quick: {
    description: "Builds and measures the tree beside its parent in two pairs on a short load. A hint; it decides nothing.",
    input: Nothing,
  },
  profile: {
    description: "Builds the tree, serves a short load and says where the time went, with the device's roofline.",
    input: Nothing,
  },
  run: {
    description: "Runs a command in a copy of the tree in the sandbox: compiler and shell, no network, no weights, 60 s at most.",
    input: RunInput,
  },
  submit: {
    description: "Hands in the tree as it stands (ready), or gives the idea up; ends the conversation unless it comes back.",
    input: Declaration,
  },
};

/** An idea that a judge or an evaluator may leave behind. expectedRatio: challenger over leader, as a guess. */
const Idea = z.strictObject({
  title: z.string().min(1).max(120),
  mechanism: z.string().min(1).max(1_000),
  expectedRatio: z.number().gt(0).lt(1_000),
});
export type Idea = z.infer<typeof Idea>;
const ideas = z.array(Idea).max(5).default([]);

export const Verdict = z.strictObject({
  ...Review.shape,
  bugs: ideas.describe("bugs that you saw and that are not this change's: filed in the backlog"),
});
export const Assessment = z.strictObject({
  bottleneck: z.string().min(1).max(2_000),
  mechanism: z.enum(["ran", "did-not-run", "unclear"]),
  evidence: z.string().max(2_000),
  ideas,
});

const TOOLS: Readonly<Record<SessionRole, Readonly<Record<string, Tool>>>> = {
  implementer: IMPLEMENTER,
  judge: { ...READING, verdict: { description: "Gives the verdict and ends the review.", input: Verdict } },
  evaluator: { ...READING, assess: { description: "Gives the assessment and ends the evaluation.", input: Assessment } },
};

/** Made by a provider whose agent edits files itself, and never offered. */
const HIDDEN = "sync";

const specsOf = (role: SessionRole): readonly ToolSpec[] =>
  Object.entries(TOOLS[role])
    .filter(([name]) => name !== HIDDEN)
    .map(([name, { description, input }]) => ({ name, description, input: z.toJSONSchema(input, { io: "input" }) }));

/** What each role is offered. */
export const TOOL_SPECS = { implementer: specsOf("implementer"), judge: specsOf("judge"), evaluator: specsOf("evaluator") };

/** Runs a tool that needs nothing but the tree. Throws ToolProblem for everything that the model got wrong. */
export function runLocal(role: SessionRole, tool: string, input: unknown, scope: Scope): string {
  const known = Object.hasOwn(TOOLS[role], tool) ? TOOLS[role][tool] : undefined;
  if (!known) throw new ToolProblem(`there is no tool ${JSON.stringify(tool)}; there are: ${Object.keys(TOOLS[role]).join(", ")}`);
  const parsed = parseInput(known.input, input);
  if (!known.run) throw new Error(`${tool} is no local tool`);
  return known.run(parsed as never, scope);
}

/** Throws ToolProblem naming what is wrong. */
export function parseInput<T extends z.ZodType>(schema: T, input: unknown): z.infer<T> {
  const parsed = schema.safeParse(input);
  if (parsed.success) return parsed.data;
  throw new ToolProblem(`the arguments do not fit: ${issuesOf(parsed.error)}`);
}
