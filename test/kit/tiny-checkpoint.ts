import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { tokenizerJson } from "../../coordinator/src/random-checkpoint/tokenizer-files.ts";
import { tiny, tinyTokens, tinyWeights, type Matrix } from "../stacks/tiny-model.ts";

/** Where the GGUF writer's tensors stand in a Hugging Face checkpoint. */
const NAMES: readonly (readonly [gguf: RegExp, hf: string])[] = [
  [/^token_embd\./, "model.embed_tokens."],
  [/^output_norm\./, "model.norm."],
  [/^blk\.(\d+)\.attn_norm\./, "model.layers.$1.input_layernorm."],
  [/^blk\.(\d+)\.ffn_norm\./, "model.layers.$1.post_attention_layernorm."],
  [/^blk\.(\d+)\.attn_output\./, "model.layers.$1.self_attn.o_proj."],
  [/^blk\.(\d+)\.attn_([qkv])\./, "model.layers.$1.self_attn.$2_proj."],
  [/^blk\.(\d+)\.ffn_(gate|up|down)\./, "model.layers.$1.mlp.$2_proj."],
];

/** llama.cpp turns neighbouring pairs of a head, Hugging Face its halves: row i of a half is row 2i or 2i + 1 there. */
function halves(m: Matrix, heads: number): Matrix {
  const [rows, half] = [m.rows / heads, m.rows / heads / 2];
  const values = Float64Array.from({ length: m.values.length }, (_, at) => {
    const [row, col] = [Math.floor(at / m.cols), at % m.cols];
    const [head, i] = [Math.floor(row / rows), row % rows];
    return m.values[(head * rows + (i < half ? 2 * i : 2 * (i - half) + 1)) * m.cols + col]!;
  });
  return { ...m, values };
}

/** One file of float32 tensors: 8 bytes length, a JSON header, the bytes. */
function safetensors(tensors: ReadonlyMap<string, Matrix>): Buffer {
  let at = 0;
  const header: Record<string, unknown> = {};
  const data = [...tensors].map(([name, m]) => {
    const bytes = Buffer.from(Float32Array.from(m.values).buffer);
    header[name] = { dtype: "F32", shape: m.rows === 1 ? [m.cols] : [m.rows, m.cols], data_offsets: [at, (at += bytes.length)] };
    return bytes;
  });
  const text = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([size, text, ...data]);
}

/**
 * Writes the tiny model (see tiny-model.ts) as a Hugging Face checkpoint of the Llama shape: the same weights, the same tokens, SmolLM2's chat template.
 * About 320 kB. `gain` multiplies what attention and feed-forward add to the embedding; `more` are tensors beside Llama's.
 */
export function writeTinyCheckpoint(folder: string, seed?: number, gain = 1, more: ReadonlyMap<string, Matrix> = new Map()): void {
  mkdirSync(folder, { recursive: true });
  const put = (name: string, value: unknown): void =>
    writeFileSync(join(folder, name), typeof value === "string" ? value : JSON.stringify(value));
  put("config.json", {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: tiny.dim,
    intermediate_size: tiny.ffn,
    num_hidden_layers: tiny.layers,
    num_attention_heads: tiny.heads,
    num_key_value_heads: tiny.kvHeads,
    head_dim: tiny.headDim,
    vocab_size: tiny.vocab,
    max_position_embeddings: tiny.context,
    rope_theta: tiny.ropeBase,
    rms_norm_eps: tiny.eps,
    tie_word_embeddings: true,
    bos_token_id: 1,
    eos_token_id: 2,
    torch_dtype: "float32",
  });
  const tokens = tinyTokens();
  put("tokenizer.json", tokenizerJson(tokens.slice(0, 3), tokens, ["h e", "l l", "he ll"]));
  put("tokenizer_config.json", { chat_template: SMOLLM_TEMPLATE, eos_token: "<|im_end|>" });
  const { matrices } = tinyWeights(seed);
  const named = new Map(
    [...matrices].map(([name, m]) => {
      const [pattern, to] = NAMES.find(([p]) => p.test(name))!;
      if (/attn_output|ffn_down/.test(name)) return [name.replace(pattern, to), { ...m, values: m.values.map((v) => v * gain) }];
      return [
        name.replace(pattern, to),
        /attn_q\./.test(name) ? halves(m, tiny.heads) : /attn_k\./.test(name) ? halves(m, tiny.kvHeads) : m,
      ];
    }),
  );
  writeFileSync(join(folder, "model.safetensors"), safetensors(new Map([...named, ...more])));
}

const SMOLLM_TEMPLATE =
  "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
