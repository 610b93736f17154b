export { Coordinator, type CoordinatorOptions } from "./coordinator.ts";
export { loadSettings, ConfigError, type Settings } from "./config.ts";
export { ApiClient, UnreachableError } from "./api/client.ts";
export { ApiProblem } from "./api/problem.ts";
