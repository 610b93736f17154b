import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { builtPythonStack, type PythonWith } from "./python-stack.ts";

const common = { hidden_act: "silu", num_hidden_layers: 2, max_position_embeddings: 4096, rms_norm_eps: 1e-5, vocab_size: 2048 };

/** config.json of the smallest shapes in which successors can be planted, one of each family that stacks/torch serves: 7 and 9 MB. */
export const SMALL_SHAPES = {
  llama: {
    ...{ ...common, model_type: "llama", architectures: ["LlamaForCausalLM"], rope_theta: 500_000, tie_word_embeddings: true },
    ...{ hidden_size: 512, intermediate_size: 768, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 64 },
    rope_scaling: { factor: 32, high_freq_factor: 4, low_freq_factor: 1, original_max_position_embeddings: 8192, rope_type: "llama3" },
  },
  qwen2: {
    ...{ ...common, model_type: "qwen2", architectures: ["Qwen2ForCausalLM"], rope_theta: 1_000_000, tie_word_embeddings: true },
    ...{ hidden_size: 512, intermediate_size: 768, num_attention_heads: 4, num_key_value_heads: 2 },
  },
  qwen3: {
    ...{ ...common, model_type: "qwen3", architectures: ["Qwen3ForCausalLM"], rope_theta: 1_000_000, tie_word_embeddings: false },
    ...{ hidden_size: 512, intermediate_size: 768, num_attention_heads: 2, num_key_value_heads: 1, head_dim: 128 },
  },
} as const;

/** stacks/torch as it computes on an accelerator: in the checkpoint's own type, which it leaves on a CPU. */
export async function bfloat16Stack(python: PythonWith, dir: string): Promise<string> {
  const program = await builtPythonStack("torch", python, dir);
  const backend = join(dir, "tree", "core", "backend.py");
  const text = readFileSync(backend, "utf8");
  const changed = text.replace('torch.float32 if self.device.type == "cpu" else self.shape.type', "self.shape.type");
  if (changed === text) throw new Error(`${backend} chooses its type in another way`);
  writeFileSync(backend, changed);
  execFileSync(python.command, ["build.py", join(dir, "stack")], { cwd: join(dir, "tree") });
  return program;
}
