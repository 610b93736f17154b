import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, describe, it } from "vitest";
import { verifiedWeights } from "../../gpu-agent/src/worker/weights.ts";
import { CHART } from "../kit/chart.ts";
import { fakeHub, type FakeHub } from "../kit/fake-hub.ts";
import { pythonWith } from "../kit/python-stack.ts";
import { tempDir } from "../kit/temp-dir.ts";
import { writeTinyCheckpoint } from "../kit/tiny-checkpoint.ts";

const python = pythonWith("huggingface_hub");
const REPOSITORY = "tiny/llama";
const REVISION = "0123456789abcdef0123456789abcdef01234567";
const model = { repository: REPOSITORY, revision: REVISION, name: "tiny" };

describe.skipIf(python === null)("fetch-weights.py (skipped without Python's huggingface_hub)", { timeout: 120_000 }, () => {
  using made = tempDir("fetch-weights-checkpoint");
  writeTinyCheckpoint(made.path);
  const checkpoint = Object.fromEntries(readdirSync(made.path).map((name) => [name, readFileSync(join(made.path, name))]));
  const repository: Record<string, Buffer> = {
    ...checkpoint,
    ...{ "README.md": Buffer.from("read me"), "modeling_tiny.py": Buffer.from("import os"), "pytorch_model.bin": Buffer.from("a pickle") },
    ...{
      "original/params.json": Buffer.from("{}"),
      "consolidated.safetensors": Buffer.from("the same"),
      "gguf/tiny.gguf": Buffer.from("GGUF, it says"),
    },
  };

  /** What the Job's last command does in its pod, with a cache whose weights are in `dir`. */
  async function fetched(
    dir: string,
    hub: FakeHub,
    models: readonly object[],
    token?: string,
  ): Promise<{ code: number | null; text: string }> {
    for (const name of ["bin", "weights", "home"]) mkdirSync(join(dir, name), { recursive: true });
    const vibeserve = join(dir, "bin", "vibeserve");
    writeFileSync(vibeserve, `#!/bin/sh\nexec '${process.execPath}' '${join(CHART, "../../../coordinator/src/main.ts")}' "$@"\n`);
    chmodSync(vibeserve, 0o755);
    writeFileSync(join(dir, "models.json"), JSON.stringify(models));
    writeFileSync(join(dir, "token"), token ?? "");
    const child = spawn(python?.command ?? "", [join(CHART, "files/fetch-weights.py"), join(dir, "models.json"), join(dir, "weights")], {
      cwd: dir,
      env: {
        ...{ PATH: `${join(dir, "bin")}:${process.env["PATH"] ?? ""}`, HOME: join(dir, "home"), PYTHONPATH: python?.path ?? "" },
        ...{ HF_ENDPOINT: hub.url, HF_HUB_DISABLE_PROGRESS_BARS: "1", HF_TOKEN_PATH: join(dir, "token") },
      },
      timeout: 100_000,
    });
    let text = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes: Buffer) => (text += bytes.toString()));
    const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
    return { code, text };
  }
  const digestIn = (text: string): string => /: sha256 ([0-9a-f]{64})$/m.exec(text)?.[1] ?? "";

  it("brings a checkpoint without code and copies of it, under its name and readable by all, with the digest that an agent finds; once", async () => {
    using dir = tempDir("fetch-weights");
    await using hub = await fakeHub(REPOSITORY, REVISION, repository);
    const first = await fetched(dir.path, hub, [model]);
    expect(first.code, first.text).toBe(0);
    const folder = join(dir.path, "weights", "tiny");
    expect(readdirSync(folder).sort()).toEqual(Object.keys(checkpoint).sort());
    expect(readdirSync(join(dir.path, "weights")).sort()).toEqual([".tiny.json", "tiny"]);
    for (const path of [folder, join(folder, "config.json")]) expect(statSync(path).mode & 0o044, path).toBe(0o044);
    const ref = { name: "tiny", file: "tiny", sha256: digestIn(first.text), format: "hf" as const };
    expect(await verifiedWeights(dir.path, ref)).toBe(folder);

    hub.sent.length = 0;
    const second = await fetched(dir.path, hub, [model]);
    expect([second.code, digestIn(second.text)], second.text).toEqual([0, ref.sha256]);
    expect(hub.sent).toEqual([]);
    const other = await fetched(dir.path, hub, [{ ...model, revision: "f".repeat(40) }]);
    expect([other.code, other.text]).toEqual([
      1,
      expect.stringMatching(/weights\/tiny is there already, and not from .*choose another name/),
    ]);
  });

  it("brings one file as a GGUF's name", async () => {
    using dir = tempDir("fetch-weights");
    await using hub = await fakeHub(REPOSITORY, REVISION, repository);
    const { code, text } = await fetched(dir.path, hub, [{ ...model, name: "tiny.gguf", files: ["gguf/tiny.gguf"] }]);
    expect(code, text).toBe(0);
    const bytes = repository["gguf/tiny.gguf"]!;
    expect(readFileSync(join(dir.path, "weights", "tiny.gguf"))).toEqual(bytes);
    expect(digestIn(text)).toBe(createHash("sha256").update(bytes).digest("hex"));
  });

  it("names nothing that is not whole: a file that is not what the hub lists is fetched again by the next try", async () => {
    using dir = tempDir("fetch-weights");
    await using hub = await fakeHub(REPOSITORY, REVISION, repository, { broken: "model.safetensors" });
    const first = await fetched(dir.path, hub, [model]);
    expect([first.code, first.text]).toEqual([1, expect.stringContaining("model.safetensors is not what the hub says it is")]);
    expect(readdirSync(join(dir.path, "weights")).filter((name) => !name.startsWith("."))).toEqual([]);
    hub.sent.length = 0;
    const second = await fetched(dir.path, hub, [model]);
    expect(second.code, second.text).toBe(0);
    expect(hub.sent).toEqual(["model.safetensors"]);
  });

  it("reads the token for gated weights from its file, and says in a sentence what is refused", async () => {
    using dir = tempDir("fetch-weights");
    await using hub = await fakeHub(REPOSITORY, REVISION, repository, { token: "hf_secret" });
    const without = await fetched(dir.path, hub, [model]);
    expect([without.code, without.text]).toEqual([1, expect.stringMatching(/^tiny: .*restricted/s)]);
    expect(without.text).not.toContain("Traceback");
    expect((await fetched(dir.path, hub, [model], "hf_secret")).code).toBe(0);
    const none = await fetched(dir.path, hub, [{ ...model, name: "none", files: ["*.onnx"] }], "hf_secret");
    expect([none.code, none.text]).toEqual([1, expect.stringContaining("tiny/llama has no file like *.onnx")]);
  });

  it("fetches the others where one can't be had, and takes no word from a note that was not finished", async () => {
    using dir = tempDir("fetch-weights");
    await using hub = await fakeHub(REPOSITORY, REVISION, repository);
    mkdirSync(join(dir.path, "weights"));
    writeFileSync(join(dir.path, "weights", ".tiny.json"), "");
    const { code, text } = await fetched(dir.path, hub, [{ ...model, name: "none", files: ["*.onnx"] }, model]);
    expect([code, text]).toEqual([1, expect.stringContaining("none: tiny/llama has no file like *.onnx")]);
    expect(digestIn(text)).not.toBe("");
    expect(readdirSync(join(dir.path, "weights")).sort()).toEqual([".tiny.json", "tiny"]);
  });

  it("says in a sentence that no hub is reached", async () => {
    using dir = tempDir("fetch-weights");
    const hub = await fakeHub(REPOSITORY, REVISION, repository);
    await hub[Symbol.asyncDispose]();
    const { code, text } = await fetched(dir.path, hub, [model]);
    expect([code, text]).toEqual([1, expect.stringMatching(/^tiny: .*refused\n$/)]);
  });
});
