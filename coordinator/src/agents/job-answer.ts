import type { Failure, Outcome } from "@vibeserve/shared";
import { fenced, inline, plain } from "./prompt.ts";
import { bounded } from "./workspace.ts";

/** A job's outcome as the model that asked for it is told: bounded, with what others wrote fenced as data. */
export function jobAnswer(outcome: Outcome): { text: string; isError: boolean } {
  switch (outcome.status) {
    case "built":
      return ok(`builds, ${outcome.seconds.toFixed(1)} s${outcome.cached ? " (from the cache)" : ""}, ${outcome.bytes} bytes`);
    case "checked": {
      const { report } = outcome;
      const gates = report.gates.map((g) => `${g.ok ? "ok  " : "FAIL"} ${g.name}: ${g.value} ${g.unit}, must be ${g.limit}`).join("\n");
      const first = report.firstFailure;
      const example = first
        ? `\nfirst failure, gate ${first.gate}:\n${fenced("first failure", `where: ${first.where}\ncandidate: ${first.candidate}\nreference: ${first.reference}`)}`
        : "";
      return {
        text: bounded(
          `${report.ok ? "passed" : "FAILED"} on ${report.positions} positions, ${report.servedTokens} served tokens\n${gates}${example}`,
        ),
        isError: !report.ok,
      };
    }
    case "measured": {
      const { comparison: c, challenger, champion } = outcome;
      const unit = challenger.metric.unit;
      return ok(
        `${c.point.toFixed(3)}x of the parent [${c.lo.toFixed(3)}, ${c.hi.toFixed(3)}] at ${Math.round(c.confidence * 100)} %, ${c.pairs} pairs: ${challenger.value.toFixed(2)} against ${champion.value.toFixed(2)} ${unit}`,
      );
    }
    case "profiled":
      return ok(profileText(outcome));
    case "ran": {
      const end = outcome.timedOut
        ? "stopped at its time limit"
        : outcome.exitCode === null
          ? "ended by a signal"
          : `exit ${outcome.exitCode}`;
      const { stdout, stderr } = outcome;
      return {
        text: `${end}, ${outcome.seconds.toFixed(1)} s\n${fenced("stdout", tail(stdout))}\n${fenced("stderr", tail(stderr))}`,
        isError: outcome.exitCode !== 0,
      };
    }
    case "failed":
      return { text: bounded(failureText(outcome.failure)), isError: true };
    case "baseline-ready":
      return ok("a baseline");
  }
}

const ok = (text: string) => ({ text, isError: false });
const tail = (text: string): string => (text.length > 6_000 ? `(…)\n${text.slice(-6_000)}` : text);

export function profileText({ profile, roofline }: Extract<Outcome, { status: "profiled" }>): string {
  const effect = profile.observerEffect === null ? "unknown" : `${profile.observerEffect.toFixed(2)}x slower with the profiler`;
  const regions = profile.regions.map((r) => `${(100 * r.share).toFixed(1).padStart(5)} %  ${plain(r.name)}`).join("\n");
  const bound = roofline
    ? `roofline: ${roofline.tokPerS.toFixed(0)} tok/s, bound by ${roofline.limit} (${(roofline.bytesPerToken / 1e6).toFixed(2)} MB and ${(roofline.opsPerToken / 1e6).toFixed(1)} Mop a token; ${roofline.memoryGBs.toFixed(1)} GB/s, ${roofline.gops.toFixed(0)} Gop/s measured on this device)`
    : "roofline: not known for this device";
  return bounded(
    `profile by ${profile.source}, ${profile.samples} samples, observer effect ${effect}${profile.note === "" ? "" : `; ${inline(plain(profile.note))}`}\n${fenced("regions", regions)}\n${bound}`,
  );
}

/** Whose fault, what, and the log: a compiler's errors grouped by message, anything else its last lines. */
function failureText({ attribution, code, message, logTail }: Failure): string {
  const errors = compilerErrors(logTail);
  const head = `failed: ${code} (${attribution === "candidate" ? "your tree's own fault" : `not your fault: ${attribution}`}): ${inline(plain(message))}`;
  if (errors.length > 0) return `${head}\n${fenced("compiler", errors.join("\n"))}`;
  return logTail === "" ? head : `${head}\n${fenced("log", tail(logTail))}`;
}

const GROUPS = 15;
const PLACES = 4;

/** `file:line:column: error: message` of gcc and clang: one line a message, with its first places. Warnings only where there is no error. */
export function compilerErrors(log: string): string[] {
  const found = [...log.matchAll(/^(\S+?):(\d+):(?:(\d+):)? (fatal error|error|warning): (.*)$/gm)];
  const errors = found.filter(([, , , , kind]) => kind !== "warning");
  const groups = new Map<string, string[]>();
  for (const [, file = "", line = "", , kind = "", message = ""] of errors.length > 0 ? errors : found) {
    const name = `${kind}: ${message.slice(0, 400)}`;
    groups.set(name, [...(groups.get(name) ?? []), `${file}:${line}`]);
  }
  // A linker has no columns and no "error:".
  for (const [line] of errors.length > 0 ? [] : log.matchAll(/^.*(?:undefined reference to|multiple definition of).*$/gm))
    groups.set(line.slice(0, 400), []);
  const shown = [...groups].slice(0, GROUPS).map(([message, places]) => {
    const more = places.length > PLACES ? ` and ${places.length - PLACES} more` : "";
    return places.length === 0 ? message : `${places.slice(0, PLACES).join(", ")}${more}: ${message}`;
  });
  return groups.size > GROUPS ? [...shown, `(${groups.size - GROUPS} more kinds of errors)`] : shown;
}
