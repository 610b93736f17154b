import type { Settings } from "../config.ts";
import type { Output } from "./output.ts";

/** What every verb gets: settings, which coordinator it means, and where its words go. */
export interface Invocation {
  settings: Settings;
  /** Name of --context; undefined: the coordinator of the data folder. */
  context: string | undefined;
  output: Output;
  version: string;
}
