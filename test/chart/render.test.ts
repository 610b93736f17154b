import { describe, expect, it } from "vitest";
import {
  CHART,
  GUIDES,
  guideValues,
  helm,
  idOf,
  PRESETS,
  presetArgs,
  render,
  renderArgs,
  runHelm,
  valuesOf,
  type RenderOptions,
} from "../kit/chart.ts";
import { tempDir } from "../kit/temp-dir.ts";

/** What a switch needs beside it. */
const WITH: Record<string, RenderOptions> = {
  "nats.enabled": { set: ["nats.url=tls://nats.example:4222", "nats.existingSecret=broker"] },
  "metrics.podMonitor.enabled": { set: ["nats.exporter.enabled=true"] },
  "builders.autoscaling.hpa.enabled": { set: ["builders.enabled=true"] },
  "builders.autoscaling.keda.enabled": { set: ["builders.enabled=true", "builders.autoscaling.keda.prometheus=http://prometheus:9090"] },
  "agents.admissionPolicy.enabled": { set: ["agents.classes.nvidia.gpu.mode=lease-pod", "agents.classes.nvidia.pool=h100"] },
  "weights.coordinator": { set: ["weights.existingClaim=weights"] },
  "agents.sandbox.seccomp.install": { set: ["agents.sandbox.mode=userNamespaces"] },
};

const SWITCHES = switchesOf(valuesOf(""));

/** Paths of all booleans. */
function switchesOf(value: unknown, path: string[] = []): [string, boolean][] {
  if (typeof value === "boolean") return [[path.join("."), value]];
  if (typeof value !== "object" || value === null || Array.isArray(value)) return [];
  return Object.entries(value).flatMap(([key, inner]) => switchesOf(inner, [...path, key.replaceAll(".", "\\.")]));
}

describe.skipIf(helm === null)("the chart (skipped without helm)", () => {
  it.each(PRESETS)("lints strictly: %s", (preset) => {
    const { code, out, err } = runHelm(["lint", "--strict", CHART, ...presetArgs(preset)]);
    expect(code, out + err).toBe(0);
  });

  it.each(PRESETS)("makes these objects: %s", (preset) => {
    expect(render({ preset }).map(idOf).sort().join("\n")).toMatchSnapshot();
  });

  it.each(GUIDES)("takes the values that docs/install/%s.md gives", (page) => {
    using dir = tempDir("chart-guide");
    const files = [guideValues(page, dir.path)];
    expect(JSON.stringify(render({ files }))).not.toBe(JSON.stringify(render()));
  });

  it.each(SWITCHES)("renders with %s switched from %s, and something is different", (path, on) => {
    const { set = [] } = WITH[path] ?? {};
    const before = runHelm(["template", ...renderArgs({ set: path === "nats.enabled" ? [] : set })]);
    const after = runHelm(["template", ...renderArgs({ set: [...set, `${path}=${String(!on)}`] })]);
    expect(after.err).toBe("");
    expect(after.out === before.out).toBe(false);
  });

  it.each([
    [
      "a NATS of one's own can't be opened",
      ["nats.enabled=false", "nats.url=tls://n:4222", "nats.existingSecret=b", "externalAccess.enabled=true"],
      "open yours",
    ],
    [
      "two scalers of one Deployment are one too many",
      ["builders.enabled=true", "builders.autoscaling.hpa.enabled=true", "builders.autoscaling.keda.enabled=true"],
      "enable one",
    ],
    ["a monitor of servers needs their exporter", ["metrics.podMonitor.enabled=true"], "nats.exporter.enabled"],
    ["a sandbox by runtime class needs its name", ["agents.sandbox.mode=runtimeClass"], "runtimeClassName"],
    ["weights are in one place", ["weights.existingClaim=w", "weights.hostPath=/w"], "weights: existingClaim and hostPath are both given"],
    [
      "a class's weights are in one place",
      ["agents.classes.amd.weights.existingClaim=w", "agents.classes.amd.weights.hostPath=/w"],
      "agents.classes.amd.weights: existingClaim and hostPath are both given",
    ],
    ["a folder of a claim needs the claim", ["weights.hostPath=/w", "weights.subPath=a"], "weights.subPath is a folder of existingClaim"],
    ["weights that the coordinator writes need a claim", ["weights.coordinator=true", "weights.hostPath=/w"], "weights.coordinator needs"],
    [
      "weights that are fetched need a claim",
      ["weights.fetch.models[0].repository=a/b", `weights.fetch.models[0].revision=${"a".repeat(40)}`, "weights.fetch.models[0].name=b"],
      "weights.fetch needs weights.existingClaim",
    ],
    ["KEDA needs to know whom to ask", ["builders.enabled=true", "builders.autoscaling.keda.enabled=true"], "keda.prometheus"],
  ])("refuses what would not work: %s", (_, set, message) => {
    const { code, err } = runHelm(["template", ...renderArgs({ set })]);
    expect(code).not.toBe(0);
    expect(err).toContain(message);
  });
});
