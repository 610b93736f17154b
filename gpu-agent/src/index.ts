export { VERSION } from "./agent.ts";
