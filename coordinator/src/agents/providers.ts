import type { AgentKind } from "@vibeserve/shared";
import { credentialOf, type Settings } from "../config.ts";
import type { Prices } from "./prices.ts";
import type { Provider } from "./provider.ts";

type Agent = Exclude<AgentKind, "playbook">;

interface ProvidersDeps {
  settings: Settings;
  prices: () => Prices;
  /** Faults of ours around a coding CLI. */
  onError: (error: unknown) => void;
}

/** What is asked for each kind of agent; made when it is first needed: the clients take 30 MB each, and most coordinators ask no model. */
export class Providers implements AsyncDisposable {
  readonly #deps: ProvidersDeps;
  readonly #made = new Map<Agent, Promise<Provider & Partial<AsyncDisposable>>>();

  constructor(deps: ProvidersDeps) {
    this.#deps = deps;
  }

  async get(agent: Agent): Promise<Provider> {
    const made = this.#made.get(agent) ?? this.#make(agent);
    this.#made.set(agent, made);
    made.catch(() => this.#made.delete(agent));
    return made;
  }

  /** Why this kind of agent can't be asked here, with the fix; null: it can, as far as is known before asking. */
  async missing(agent: Agent): Promise<string | null> {
    const { anthropic, openai } = this.#deps.settings;
    const instead = "or plan without a model: --agent playbook";
    switch (agent) {
      case "anthropic":
        return anthropic.apiKey === null && anthropic.cloud === null
          ? `ANTHROPIC_API_KEY is not set where the coordinator runs; set it there, ${instead}`
          : null;
      case "openai-compatible":
        return openai.baseUrl === null && openai.apiKey === null
          ? `neither OPENAI_BASE_URL (such as http://host:8000/v1) nor OPENAI_API_KEY is set where the coordinator runs; set them there, ${instead}`
          : null;
      case "command": {
        const recipe = await this.#recipe();
        const key = credentialOf(recipe.api.credential);
        return key === null
          ? `${recipe.api.credential} is not set where the coordinator runs, which ${recipe.program} needs; set it there, ${instead}`
          : null;
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const made of await Promise.allSettled(this.#made.values()))
      if (made.status === "fulfilled") await made.value[Symbol.asyncDispose]?.();
  }

  async #make(agent: Agent): Promise<Provider & Partial<AsyncDisposable>> {
    const { settings, prices, onError } = this.#deps;
    const { anthropic, openai, cache, path, root } = settings;
    switch (agent) {
      case "anthropic": {
        if (anthropic.cloud !== null) return (await import("./anthropic-clouds.ts")).anthropicOn(anthropic.cloud);
        const client = await import("./anthropic.ts");
        return client.anthropic({ apiKey: anthropic.apiKey ?? "", baseUrl: anthropic.baseUrl });
      }
      case "openai-compatible": {
        const { chatCompletions } = await import("./chat-completions.ts");
        return chatCompletions({ apiKey: openai.apiKey, baseUrl: openai.baseUrl ?? "https://api.openai.com/v1" });
      }
      case "command": {
        const [{ commandProvider }, { locateBubblewrap }, { holdByAgent, withMachine }] = await Promise.all([
          import("./command/command-provider.ts"),
          import("./command/agent-sandbox.ts"),
          import("./command/machine-turn.ts"),
        ]);
        const recipe = await this.#recipe();
        const base = { "x-api-key": anthropic.baseUrl, bearer: openai.baseUrl, "x-goog-api-key": null }[recipe.api.auth];
        const provider = commandProvider({
          recipe,
          ...{ prices, path, onError },
          credential: credentialOf(recipe.api.credential),
          baseUrl: base,
          sandbox: () => locateBubblewrap(cache),
        });
        return withMachine(provider, holdByAgent(root, onError));
      }
    }
  }

  async #recipe() {
    const { loadRecipes, RecipeError } = await import("./command/recipe.ts");
    const { cli, data, root } = this.#deps.settings;
    const recipes = loadRecipes(root, data);
    const recipe = recipes.get(cli);
    if (!recipe)
      throw new RecipeError(`VIBESERVE_CLI: there is no recipe ${JSON.stringify(cli)}; there are: ${[...recipes.keys()].join(", ")}`);
    return recipe;
  }
}
