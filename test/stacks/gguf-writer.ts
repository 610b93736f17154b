export { encodeGguf, type GgufTensor, type GgufValue } from "../../coordinator/src/tiny-model/gguf-writer.ts";
