import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { kindsTable } from "../fixtures/probe/kinds.ts";
import { fixtures, FIXTURES, output } from "./probe-kit.ts";

it("every output has a sidecar that says where it was published, or that it is made up; no sidecar stands alone", () => {
  const all = fixtures();
  expect(all.map((f) => f.name).sort()).toEqual(
    globSync("*/*.source.json", { cwd: FIXTURES })
      .map((f) => f.replace(".source.json", ""))
      .sort(),
  );
  for (const { name, sidecar } of all) {
    expect(output(name).length, name).toBeGreaterThan(0);
    expect(sidecar.source === null, name).toBe(sidecar.retrieved === null);
  }
});

it("docs/fleet.md says of each kind of device what the sidecars and results say, and no more", () => {
  expect(readFileSync(join(import.meta.dirname, "../../docs/fleet.md"), "utf8")).toContain(kindsTable());
});
