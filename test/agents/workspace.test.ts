import { expect, test } from "vitest";
import { ToolProblem, Workspace } from "../../coordinator/src/agents/workspace.ts";

const tree = (files: Record<string, string>) => new Map(Object.entries(files).map(([path, text]) => [path, Buffer.from(text)]));
const textsOf = (w: Workspace) => Object.fromEntries([...w.files].map(([path, bytes]) => [path, Buffer.from(bytes).toString()]));

test("changes of a worktree are taken as one: a new spelling, a folder in a file's place, a file in a folder's", () => {
  const w = new Workspace(tree({ "a.cpp": "1", b: "2", "c/x": "3" }));
  expect(w.apply({ "A.cpp": "1", "b/y": "2", c: "3", "a.cpp": null, b: null, "c/x": null })).toBe("6 files");
  expect(textsOf(w)).toEqual({ "A.cpp": "1", "b/y": "2", c: "3" });
});

test("changes that make no tree are refused, and none of them is made", () => {
  const w = new Workspace(tree({ "a.cpp": "1" }));
  for (const changes of [{ "b.cpp": "2", ".git/hooks/x": "3" }, { "b.cpp": "2", "A.cpp": "3" }, { "a.cpp": null }])
    expect(() => w.apply(changes)).toThrow(ToolProblem);
  expect(textsOf(w)).toEqual({ "a.cpp": "1" });
});

test("files that have nothing in common are named, not compared line by line; a new file is shown", () => {
  const lines = (name: string, n: number) => Array.from({ length: n }, (_, i) => `${name} ${i}\n`).join("");
  const w = new Workspace(tree({ "a.cpp": lines("a", 4_000), "b.cpp": "x" }));
  w.write("a.cpp", lines("b", 40_000));
  w.write("c.cpp", lines("c", 20_000));
  w.write("b.cpp", "y");
  expect(w.diff("a.cpp")).toMatch(/^--- a\/a\.cpp\n\+\+\+ b\/a\.cpp\n\(too different/);
  expect(w.diff("c.cpp")).toContain("+c 0\n");
  expect(w.diff("b.cpp")).toContain("-x\n");
});
