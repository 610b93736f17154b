import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { stringify } from "yaml";
import { site } from "../kit/sites.ts";
import { tinyTarget } from "../kit/tiny-stack.ts";

vi.setConfig({ testTimeout: 120_000 });

interface Shown {
  findings: { idea: string; outcome: string; weight: number; similarity: number; because: string[]; effect: { pairs: number } }[];
}

test("vibeserve findings tells what ended campaigns showed, with and without a coordinator, and how much it says of another target", async () => {
  using s = site();
  const verb = async (...args: string[]) => {
    const command = s.at.run(...args);
    return { code: await command.ended, out: command.out(), err: command.err() };
  };
  const shown = async (...args: string[]) => JSON.parse((await verb("findings", "--json", ...args)).out) as Shown;
  expect(await verb("findings")).toMatchObject({ code: 2, err: expect.stringMatching(/holds no campaigns/) as string });
  expect(await s.at.start(s.at.target, "--baseline", "none").ended).toBe(0);
  const all = await shown();
  expect(all.findings.map((f) => [f.idea, f.outcome, f.weight, f.similarity])).toEqual(
    expect.arrayContaining([
      ["linear-fast over seed/linear.cpp", "proven", 1, 1],
      ["threads over seed/threading.cpp", "proven", 1, 1],
      ["head-slow over seed/head.cpp", "disproven", 1, 1],
    ]),
  );
  const other = join(s.at.dir, "other.yaml");
  writeFileSync(other, stringify({ ...tinyTarget, name: "other", model: { ...tinyTarget.model, name: "x" } }));
  expect((await shown("--target", other)).findings.map((f) => f.similarity)).toEqual([0.8, 0.8, 0.8]);
  expect((await shown("--target", "tiny")).findings.map((f) => f.similarity)).toEqual([1, 1, 1]);
  expect(await verb("findings", "--target", "nothing")).toMatchObject({ code: 2, err: expect.stringMatching(/no such file/) as string });
  // What is installed now is not what they were measured with.
  writeFileSync(join(s.at.dir, "root/stacks/tiny/bindings/head/head-slow.cpp"), "// changed\n");
  const up = s.at.run("up");
  await up.printed(/coordinator ready/);
  expect((await shown()).findings.map((f) => [f.weight, f.because])).toEqual(Array(3).fill([0.5, ["the stack changed"]]));
  const { out } = await verb("findings");
  expect(out).toMatch(
    /linear-fast over seed\/linear\.cpp +proven +5\.0\d× \[[\d., ]+\], 2 pairs +avx2, SIMULATED +m +0\.50 +the stack changed/,
  );
  expect(out).toMatch(/3 findings of 1 ended campaigns/);
  await s.at.stop();
});
