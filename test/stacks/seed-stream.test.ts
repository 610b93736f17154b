import { streamTests } from "./suites/stream.ts";
import { serveTiny } from "./tiny-served.ts";
import { builtStack } from "./tree.ts";

streamTests(async () => serveTiny(await builtStack()));
