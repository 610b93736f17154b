import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { CHART, helm, PRESETS, renderArgs, runHelm, valuesOf } from "../kit/chart.ts";

type Schema = z.infer<typeof Schema>;
/** As far as a values.schema.json of ours uses JSON Schema. */
const Schema = z.looseObject({
  $ref: z.string().optional(),
  type: z.union([z.string(), z.array(z.string())]).optional(),
  enum: z.array(z.unknown()).optional(),
  get properties() {
    return z.record(z.string(), Schema).optional();
  },
  get additionalProperties() {
    return z.union([z.boolean(), Schema]).optional();
  },
  get items() {
    return Schema.optional();
  },
});
const root = Schema.extend({ $defs: z.record(z.string(), Schema) }).parse(
  JSON.parse(readFileSync(join(CHART, "values.schema.json"), "utf8")),
);
const resolve = (schema: Schema): Schema =>
  schema.$ref === undefined ? schema : (root.$defs[schema.$ref.replace("#/$defs/", "")] ?? schema);

/** Of objects that list their keys: where they are, by a path that `--set` takes, and the path as JSON's pointer. */
function levels(schema: Schema, path: string[] = []): { set: string; pointer: string }[] {
  const own = resolve(schema);
  const here = own.additionalProperties === false ? [{ set: path.map((key) => `${key}.`).join(""), pointer: `/${path.join("/")}` }] : [];
  const inner = typeof own.additionalProperties === "object" ? [["cpu", own.additionalProperties] as const] : [];
  // What is in a list has no path of its own for `--set`.
  return [...here, ...[...Object.entries(own.properties ?? {}), ...inner].flatMap(([key, value]) => levels(value, [...path, key]))];
}

/** Templates' uses of values, with what `with`, `range` and arguments put before them left out. */
const templates = ["templates", "templates/tests"]
  .flatMap((dir) => readdirSync(join(CHART, dir)).map((name) => join(CHART, dir, name)))
  .filter((path) => /\.(tpl|yaml|txt)$/.test(path))
  .map((path) => readFileSync(path, "utf8"))
  .join("\n");
const used = new Set([...templates.matchAll(/\.Values((?:\.[A-Za-z0-9]+)+)/g)].map((match) => (match[1] ?? "").slice(1)));

describe("values (of the chart)", () => {
  it("that templates use are all in values.yaml", () => {
    const values = valuesOf("");
    const missing = [...used].filter((path) => {
      let at: unknown = values;
      for (const key of path.split("."))
        at = typeof at === "object" && at !== null && key in at ? (at as Record<string, unknown>)[key] : undefined;
      return at === undefined;
    });
    expect(missing).toEqual([]);
  });

  it("that values.yaml has are all used by a template, and in the schema", () => {
    const unused: string[] = [];
    const unknown: string[] = [];
    const look = (value: unknown, path: string[], schema: Schema | undefined): void => {
      const own = schema === undefined ? undefined : resolve(schema);
      if (own === undefined) unknown.push(path.join("."));
      const key = path.at(-1) ?? "";
      const whole = path.some((_, i) => used.has(path.slice(0, i + 1).join(".")));
      // A part of what a template is given whole is used as .KEY.
      if (path.length > 0 && !whole && !new RegExp(`\\.${key.replace(/\W/g, "\\$&")}\\b`).test(templates) && !path.includes("classes"))
        unused.push(path.join("."));
      if (typeof value !== "object" || value === null || Array.isArray(value)) return;
      for (const [name, inner] of Object.entries(value)) {
        const more = own?.additionalProperties;
        look(
          inner,
          [...path, name],
          own?.properties?.[name] ?? (typeof more === "object" ? more : own && own.properties === undefined ? {} : undefined),
        );
      }
    };
    look(valuesOf(""), [], root);
    expect(unused).toEqual([]);
    expect(unknown).toEqual([]);
  });

  it("have a comment in each group of values.yaml", () => {
    const lines = readFileSync(join(CHART, "values.yaml"), "utf8").split("\n");
    const bare = lines.flatMap((line, i) =>
      /^[a-zA-Z]+:/.test(line) && !/^\s*#/.test(lines[i - 1] ?? "") && !/^ {2}#/.test(lines[i + 1] ?? "") ? [line] : [],
    );
    expect(bare).toEqual([]);
  });

  it.each(PRESETS.filter((preset) => preset !== ""))("of preset %s are the defaults' keys", (preset) => {
    const schemaKeys = Object.keys(root.properties ?? {});
    expect(schemaKeys).toEqual(expect.arrayContaining(Object.keys(z.record(z.string(), z.unknown()).parse(valuesOf(preset)))));
  });
});

describe.skipIf(helm === null)("values.schema.json (skipped without helm)", () => {
  const at = levels(root);
  it("knows objects at many levels", () => {
    expect(at.length).toBeGreaterThan(60);
  });

  it.each(at)("refuses a key that it does not know, and names it: $pointer", ({ set, pointer }) => {
    const { code, err } = runHelm(["template", ...renderArgs({ set: [`${set}notAKey=1`] })]);
    expect(code).not.toBe(0);
    expect(err, pointer).toMatch(/notAKey/);
  });

  it.each(at.filter(({ set }) => set !== ""))("refuses a list in place of an object, and names the place: $pointer", ({ set, pointer }) => {
    const { code, err } = runHelm(["template", ...renderArgs({ json: [`${set.slice(0, -1)}=[1]`] })]);
    expect(code).not.toBe(0);
    expect(err).toMatch(new RegExp(`${pointer}|${pointer.split("/").at(-1) ?? ""}`));
  });

  it.each([
    ["nats.replicas=2", "/nats/replicas"],
    ["nats.persistence.size=big", "/nats/persistence/size"],
    ["coordinator.resources.requests.cpu=lots", "/coordinator/resources/requests/cpu"],
    ["agents.classes.cpu.family=tpu", "/agents/classes/cpu/family"],
    ["agents.classes.nvidia.gpu.mode=lease", "/agents/classes/nvidia/gpu/mode"],
    ["agents.classes.nvidia.gpu.count=0", "/agents/classes/nvidia/gpu/count"],
    ["agents.classes.much-too-long.enabled=true", "much-too-long"],
    ["agents.classes.x.enabled=true", "family"],
    ["agents.drainSeconds=soon", "/agents/drainSeconds"],
    ["images.nats.digest=sha256:abc", "/images/nats/digest"],
    ["coordinator.env.ANTHROPIC_API_KEY=sk-1", "ANTHROPIC_API_KEY"],
    ["coordinator.env.VIBESERVE_SOME_TOKEN=1", "VIBESERVE_SOME_TOKEN"],
    ["agents.classes.cpu.env.VIBESERVE_AGENT_JOIN=tls://x", "VIBESERVE_AGENT_JOIN"],
    ["weights.hostPath=mnt/weights", "/weights/hostPath"],
    ["weights.subPath=/models", "/weights/subPath"],
    ["agents.classes.cpu.weights.hostPath=mnt", "/agents/classes/cpu/weights/hostPath"],
    ["weights.fetch.models[0].revision=main", "/weights/fetch/models/0"],
    ["weights.fetch.models[0].name=../b", "/weights/fetch/models/0"],
    ["weights.fetch.env.HF_TOKEN=hf_1", "HF_TOKEN"],
    ["podSecurity.runAsUser=0", "/podSecurity/runAsUser"],
    ["nats.enabled=false", "/nats/url"],
    ["kubernetes.issuer=http://plain", "/kubernetes/issuer"],
    ["fullnameOverride=longer-than-twenty-two-letters", "/fullnameOverride"],
    ["externalAccess.type=ClusterIP", "/externalAccess/type"],
  ])("refuses %s and says where", (set, where) => {
    const { code, err } = runHelm(["template", ...renderArgs({ set: [set] })]);
    expect(code).not.toBe(0);
    expect(err).toContain(where);
  });
});
