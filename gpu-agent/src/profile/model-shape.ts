import { statSync } from "node:fs";
import { readGguf, type Gguf } from "../tokenizer/index.ts";

/** What a token costs, as a model's file says it. */
export interface ModelShape {
  /** Bytes of all tensors that each step reads whole: not the embeddings, of which a token reads one row, unless the head is tied to them. */
  readonly weightBytes: number;
  /** Weights that each token is multiplied with. */
  readonly bodyWeights: number;
  /** Weights that a token is multiplied with besides where the next one is asked for: vocabulary × width. */
  readonly headWeights: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

/** Shape of a GGUF file's model; null for a Hugging Face folder, and where it is not a plain decoder (experts, of which a token reads some) or the header lacks a number. */
export const shapeOfFile = (path: string): ModelShape | null => {
  const info = statSync(path);
  return info.isDirectory() ? null : modelShape(readGguf(path), info.size);
};

export function modelShape({ metadata, tensors }: Gguf, fileBytes: number): ModelShape | null {
  const arch = metadata.get("general.architecture");
  const number = (key: string): number | null => {
    const value = typeof arch === "string" ? metadata.get(`${arch}.${key}`) : undefined;
    return typeof value === "number" ? value : null;
  };
  const [layers, width, heads] = [number("block_count"), number("embedding_length"), number("attention.head_count")];
  if (layers === null || width === null || heads === null || (number("expert_count") ?? 0) > 0) return null;
  // A tensor ends where the next one begins, whatever its type; at most 31 bytes of padding are counted in.
  const starts = [...tensors.map((t) => t.offset), fileBytes].sort((a, b) => a - b);
  const bytesOf = (offset: number): number => (starts.find((s) => s > offset) ?? offset) - offset;
  const embedding = tensors.find((t) => t.name === "token_embd.weight");
  const own = tensors.find((t) => t.name === "output.weight");
  const head = own ?? embedding;
  if (head === undefined) return null;
  const matrices = tensors.filter((t) => t !== embedding && t !== own && t.shape.length === 2);
  const elements = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
  return {
    weightBytes: tensors.filter((t) => t === head || t !== embedding).reduce((sum, t) => sum + bytesOf(t.offset), 0),
    bodyWeights: matrices.reduce((sum, t) => sum + elements(t.shape), 0),
    headWeights: elements(head.shape),
    layers,
    heads,
    kvHeads: number("attention.head_count_kv") ?? heads,
    headDim: number("attention.key_length") ?? width / heads,
  };
}
