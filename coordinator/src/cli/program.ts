import { Command, CommanderError } from "commander";
import { PlaintextError } from "@vibeserve/shared";
import { UnreachableError } from "../api/client.ts";
import { ApiProblem } from "../api/problem.ts";
import { BrokerStartError } from "../broker/launch.ts";
import { BrokerSettingsError } from "../broker/settings.ts";
import { NoRoomError } from "../broker/store-guard.ts";
import { ConfigError } from "../config.ts";
import { agent } from "./agent.ts";
import { agents, agentToken, decideAgent, deviceGood } from "./agents.ts";
import { artifacts } from "./artifacts.ts";
import { bench } from "./bench.ts";
import { bundle, type BundleOptions } from "./bundle.ts";
import { campaigns, change, status, submit } from "./campaign-verbs.ts";
import { checkpoint } from "./checkpoint.ts";
import { cost } from "./cost.ts";
import { CliError, EXIT, type ExitCode } from "./exit.ts";
import { demoFleet } from "./demo-fleet.ts";
import { fleetVerbs } from "./fleet-verbs.ts";
import type { KeysOptions } from "./keys.ts";
import { learningVerbs } from "./learning-verbs.ts";
import { operationVerbs } from "./operation-verbs.ts";
import { openOutput, type Output } from "./output.ts";
import { simulate } from "./simulate.ts";
import { skills } from "./skills.ts";
import { serve } from "./serve.ts";
import { start } from "./start.ts";
import { stopSignal } from "./stop-signal.ts";
import { up } from "./up.ts";
import { validate } from "./validate.ts";
import { verbsOf } from "./verbs.ts";
import { watch } from "./watch.ts";

/** Runs one command line. Everything that can go wrong from outside ends in a message and one of four exit codes. */
export async function run(argv: readonly string[], version: string): Promise<ExitCode> {
  // --json must shape the message of a command line that does not even parse.
  const output = openOutput(argv.includes("--json"));
  try {
    await buildProgram(version, output).parseAsync([...argv], { from: "user" });
    return EXIT.done;
  } catch (error) {
    const { exitCode, code, message } = failureOf(error);
    if (exitCode !== EXIT.done) output.fail(code, message);
    return exitCode;
  }
}

/** Of a file or folder, mostly one that was named: the system's own words name it. */
const REFUSED = ["EACCES", "EEXIST", "EISDIR", "ENOSPC", "ENOTDIR", "EROFS"];

/** Rethrows what is a bug. */
function failureOf(error: unknown): { exitCode: ExitCode; code: Parameters<Output["fail"]>[0]; message: string } {
  if (error instanceof CommanderError) {
    // Help and version end this way too; help that nobody asked for was printed for want of a command.
    const message = error.code === "commander.help" ? "no command is named" : error.message.replace(/^error: /, "");
    return { exitCode: error.exitCode === 0 ? EXIT.done : EXIT.badInput, code: "bad-input", message };
  }
  if (error instanceof CliError) return { exitCode: error.exitCode, code: CODES[error.exitCode], message: error.message };
  const refused = error instanceof Error && "code" in error && REFUSED.includes(String(error.code));
  if (refused || error instanceof ConfigError || error instanceof PlaintextError || error instanceof NoRoomError)
    return { exitCode: EXIT.badInput, code: "bad-input", message: error.message };
  if (error instanceof UnreachableError) return { exitCode: EXIT.unreachable, code: "unreachable", message: error.message };
  if (error instanceof ApiProblem) {
    const bad = error.code === "bad-input" || error.code === "not-found";
    return { exitCode: bad ? EXIT.badInput : EXIT.negative, code: error.code, message: error.message };
  }
  if (error instanceof BrokerStartError || error instanceof BrokerSettingsError)
    return { exitCode: EXIT.unreachable, code: "unreachable", message: error.message };
  throw error;
}

const CODES = { 0: "internal", 1: "conflict", 2: "bad-input", 3: "unreachable" } as const;

function buildProgram(version: string, output: Output): Command {
  const program = new Command("vibeserve")
    .description("Specialises an LLM serving stack for one model, device, workload and objective, and proves that it is faster.")
    .version(version)
    .exitOverride()
    .configureOutput({ outputError: () => undefined });

  const verbs = verbsOf(program, { output, version });
  const { verb, remote, act } = verbs;

  const submission = (command: Command) =>
    command
      .option("--budget <time>", "wall time of the campaign, such as 90s, 5m, 1h")
      .option("--agent <name>", "who plans: playbook, or anthropic (needs ANTHROPIC_API_KEY)")
      .option("--usd <amount>", "what models may cost, in US dollars (default 10 where a model plans)")
      .option("--baseline <name>", "engine to compare with; repeat it for several; none for none", collect);
  const unsafe = ["--unsafe-no-sandbox", "let this machine's agent run code written by a model even where there is no sandbox"] as const;

  submission(verb("start [target]", "set up, start coordinator and agent, run one campaign, report: all on this machine"))
    .option("--resume", "go on with the campaign that was paused or killed")
    .option("--record", "write every exchange with a model to <data>/transcripts")
    .option("--new", "cancel an unfinished campaign and begin a new one")
    .option(...unsafe)
    .option("--no-setup", "use what is installed; fetch nothing")
    .action(act(start));
  verb("demo-fleet", "two pools on this machine, one masked to fewer instructions; one workload specialised for both at once")
    .option("--no-setup", "use what is installed; fetch nothing")
    .action(act(demoFleet));
  verb(
    "skills [action]",
    "list the techniques that agents may read; propose: print a patch that adds what ended campaigns measured of them",
  )
    .option("--for <target>", "only those that fit a target, as its agents see them")
    .option("--lint", "check every skill: form, references, likeness, and its fragment with a compiler")
    .action(act(skills));
  verb(
    "validate [files...]",
    "check targets without device, weights or network: form, seed, recipes, and whether the model fits (default: all shipped)",
  )
    .option("--checkpoint <dir>", "also print this checkpoint folder's digest, and compare its shape")
    .action(act(validate));
  verb("checkpoint", "make a small model of random weights, and a target for it: a campaign where no weights are")
    .option("--seed <n>", "what its weights are drawn from (default 1)")
    .option("--like <shape>", "of the shape of targets/models/SHAPE.json, as a Hugging Face folder for stacks/torch")
    .option("--layers <n>", "with --like: so many layers instead of the shape's")
    .option("--device <kind>", "with --like: cpu, nvidia, amd or apple, which the target asks for (default nvidia)")
    .action(act(checkpoint));
  verb("bundle", "write an offline bundle of this checkout: archives that serve machines without a network")
    .option("--for <platform>", "linux-x64, linux-arm64 or darwin-arm64 (default: this machine's)")
    .option("--with <parts>", "further archives beside the core: weights,wheels,npm,compiler,images")
    .option("--images <file>", "what docker buildx bake --metadata-file wrote: lists the product's own images by digest too")
    .option("--out <dir>", "where the archives go (default <data>/bundle)")
    .action(act((invocation, options: BundleOptions) => bundle(invocation, options, stopSignal())));
  verb("keys", "make the keys of a NATS cluster, its coordinator, agents and people; what is there is kept")
    .option("--out <dir>", "where folders server, coordinator, join and client go")
    .option("--kubernetes-secrets <prefix>", "or make them Secrets PREFIX-server, …, by the pod's own service account")
    .option("--namespace <name>", "of the Secrets (default: the pod's)")
    .option("--hosts <list>", "names and addresses of the nats-servers, comma-separated (default localhost)")
    .option("--advertise <list>", "HOST:PORT that nodes and people dial (default: the hosts, port 4222)")
    .option("--resolver-dir <dir>", "where the nats-servers keep accounts", "/data/resolver")
    .action(act(async (invocation, options: KeysOptions) => (await import("./keys.ts")).keys(invocation, options)));
  verb("up", "run broker and coordinator until stopped")
    .option("--listen <host:port>", "where the broker listens (default 127.0.0.1 and any free port); outside loopback it speaks TLS only")
    .option("--http <host:port>", "answer probes (/livez, /readyz, /startupz) and /metrics there, over plain HTTP (default: nowhere)")
    .action(act(up));
  remote("agent", "run this machine's agent until stopped")
    .option(...unsafe)
    .option("--no-setup", "use what is installed; fetch nothing")
    .option("--join <line>", "join the coordinator that made this line (or VIBESERVE_AGENT_JOIN, which others on the machine can't see)")
    .option("--join-file <file>", "the same, read from a file")
    .action(act(agent));
  const fleet = remote("agents", "list agents: who is in, who waits to be approved, who was put out").action(act(agents));
  remote("token", "print the command that adds one agent; its token works once", fleet)
    .option("--pool <name>", "the pool it must work in (default: the one that it names after its hardware)")
    .option("--labels <k=v,…>", "labels that its device must carry; it is then approved by itself, else by hand")
    .option("--ttl <time>", "how long the line works, such as 90s, 5m, 1h (default 1h)")
    .option("--kubernetes", "a line for pods that prove their service account; it holds no token")
    .action(act(agentToken));
  for (const [name, what] of [
    ["approve", "let an agent in that waits"],
    ["refuse", "turn an agent away that waits"],
    ["revoke", "put an agent out, now and for ever"],
  ] as const)
    remote(`${name} <agent>`, what, fleet)
      .option("--reason <text>", "told to the agent, and kept")
      .action(act((invocation, id: string, { reason }: { reason?: string }) => decideAgent(invocation, name, id, reason)));
  remote("good <device>", "lift what is held against a device, or against every device of an agent", fleet)
    .option("--reason <text>", "kept, and shown in the list")
    .action(act(deviceGood));
  submission(remote("submit <target>", "send a target to a running coordinator")).action(act(submit));
  remote("campaigns", "list campaigns, newest first").action(act(campaigns));
  remote("status", "show coordinator, broker, agents and campaigns").action(act(status));
  remote("watch [campaign]", "show a campaign until it ends (default: the newest)").action(act(watch));
  remote("cost [campaign]", "show what a campaign has cost: money, tokens, time of devices (default: the newest)").action(act(cost));
  remote("artifacts <action>", "prune: remove stored files that no campaign which is not over refers to")
    .option("--older-than <time>", "only what is older than this, such as 30d or 12h", "30d")
    .option("--dry-run", "only say what would go")
    .action(act(artifacts));
  for (const [name, what] of [
    ["pause", "start nothing new; what runs is let finish"],
    ["resume", "go on with a paused campaign"],
    ["cancel", "end a campaign now"],
  ] as const)
    remote(`${name} [campaign]`, `${what} (default: the newest)`).action(act((invocation, id?: string) => change(invocation, name, id)));
  verb("serve [campaign]", "serve a campaign's champion with an OpenAI-compatible API on loopback (default: the newest champion)")
    .option("--port <n>", "TCP port (default 8080; 0: any free one)")
    .option("--no-setup", "use what is installed; fetch nothing")
    .action(act(serve));
  verb(
    "bench <name>",
    "measure the product itself: main-job, from a fresh clone with an empty home; dispatch, of jobs, and what waiting costs; agents, what models cost the coordinator itself (source checkout only); capacity, what agents and campaigns cost",
  )
    .option("--again", "main-job: run a second campaign in the same clone")
    .action(act(bench));
  verb(
    "simulate <fleet>",
    "play a fleet and its campaigns in virtual time: makespan, cost, queues, fairness; fails where a bound is missed",
  )
    .option("--protocol", "play it with a real broker, coordinator and protocol instead: simulated agents, scaled time")
    .option("--speed <n>", "with --protocol: simulated seconds in a real one (default 60)")
    .option("--seed <text>", "what times, noise and faults are drawn from (default 1)")
    .option("--deadline <time>", "also find the devices that are needed to end by then, such as 12h")
    .action(act(simulate));
  fleetVerbs(verbs);
  learningVerbs(verbs);
  operationVerbs(verbs);
  return program;
}

function collect(value: string, before: string[] | undefined): string[] {
  return [...(before ?? []), value];
}
