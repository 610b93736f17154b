import { contractTests } from "./suites/contract.ts";
import { serveTiny } from "./tiny-served.ts";
import { builtStack } from "./tree.ts";

contractTests(async () => serveTiny(await builtStack()), "tiny.gguf");
