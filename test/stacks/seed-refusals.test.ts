import { refusalTests } from "./suites/refusals.ts";
import { serveTiny } from "./tiny-served.ts";
import { builtStack } from "./tree.ts";

refusalTests(async () => serveTiny(await builtStack()));
