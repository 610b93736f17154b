import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const PROJECT = join(import.meta.dirname, "../..");
const text = readFileSync(join(PROJECT, "docs/operations.md"), "utf8");
const anchors = [...text.matchAll(/^#+ (.+)$/gm)].map(([, title = ""]) =>
  title
    .toLowerCase()
    .replace(/[^a-z0-9 _-]/g, "")
    .replaceAll(" ", "-"),
);

test("every place in docs/operations.md that a message, an alert or a document leads to is there", () => {
  const files = globSync("{coordinator/src,gpu-agent/src,deploy,docs}/**/*.{ts,yaml,json,md,tpl,txt,sh}", { cwd: PROJECT });
  const wanted = files.flatMap((file) =>
    [...readFileSync(join(PROJECT, file), "utf8").matchAll(/operations\.md#([a-z0-9-]+)/g)].map(([, anchor = ""]) => `${anchor} (${file})`),
  );
  expect(wanted.length).toBeGreaterThan(5);
  expect(wanted.filter((place) => !anchors.includes(place.split(" ")[0] ?? ""))).toEqual([]);
});

test("each runbook says how it shows, the command that shows it, the one that cures it, and why; there are 14 and more", () => {
  const runbooks = text.slice(text.indexOf("\n## Runbooks")).split(/^### /m).slice(1);
  expect(runbooks.length).toBeGreaterThanOrEqual(14);
  for (const book of runbooks) {
    const [name] = book.split("\n");
    for (const part of ["**Symptom.**", "**Shows it.**", "**Cures it.**", "**Why.**"])
      expect([name, book.includes(part)]).toEqual([name, true]);
    expect([name, /```/.test(book)]).toEqual([name, true]);
  }
});
