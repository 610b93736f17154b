import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRng } from "@vibeserve/shared";
import { afterAll, describe, expect, test } from "vitest";
import { loadTokenizer } from "../../gpu-agent/src/tokenizer/index.ts";
import { pythonWith } from "../kit/python-stack.ts";
import { writeTinyCheckpoint } from "../kit/tiny-checkpoint.ts";

const dir = mkdtempSync(join(tmpdir(), "hf-tokenizer-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const python = pythonWith("tokenizers");

/** Patterns of tokenizer.json as the models' publishers wrote them; Qwen's differs from Llama 3's in that digits stand alone. */
const LLAMA3 = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const QWEN = LLAMA3.replace("{1,3}", "");

/** Trains a small vocabulary with Hugging Face's own library, writes tokenizer.json, and encodes lines of stdin with it. */
const SCRIPT = `
import json, sys
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
folder, pattern, specials, whole, nfc, corpus = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4] == "1", sys.argv[5] == "1", sys.argv[6]
t = Tokenizer(models.BPE(ignore_merges=whole))
t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated", False), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
if nfc: t.normalizer = normalizers.NFC()
t.train_from_iterator([corpus], trainers.BpeTrainer(vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
t.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in specials])
t.save(folder + "/tokenizer.json")
t.encode_special_tokens = True
print(json.dumps({"size": t.get_vocab_size(), "ids": [t.encode(x, add_special_tokens=False).ids for x in json.load(sys.stdin)]}))
`;

/** Text of every kind that patterns and normalizers treat apart. */
function texts(seed: string, count: number): string[] {
  const rng = createRng(seed);
  const pieces = [
    "the",
    " The",
    "it's",
    "WE'LL",
    "é",
    "e\u0301",
    "ſ",
    "\u0085",
    "\uFEFF",
    "\u00a0",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "12345",
    "٣",
    "½",
    "漢字",
    "👩‍👩‍👧",
    "!?",
    "...",
    "_",
    "<|im_end|>",
    "\u2028",
    "\u0300",
    "#",
    "x1y",
  ];
  return Array.from({ length: count }, () => Array.from({ length: 1 + rng.int(12) }, () => pieces[rng.int(pieces.length)]).join(""));
}

const corpus = `${readFileSync(join(import.meta.dirname, "../../README.md"), "utf8")} the The it's WE'LL 漢字 12345 é`;
const FAMILIES = [
  ["Llama 3", LLAMA3, ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], true, false],
  ["Qwen", QWEN, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], false, true],
] as const;

describe.skipIf(python === null)("a tokenizer.json gives Hugging Face's own ids (skipped where no Python has tokenizers)", () => {
  test.for(FAMILIES)("%s's patterns, on 3,000 texts", ([name, pattern, specials, whole, nfc]) => {
    const folder = mkdtempSync(join(dir, "f-"));
    const given = texts(name, 3000);
    const out = execFileSync(
      python!.command,
      ["-c", SCRIPT, folder, pattern, JSON.stringify(specials), whole ? "1" : "0", nfc ? "1" : "0", corpus],
      {
        input: JSON.stringify(given),
        env: { ...process.env, PYTHONPATH: python!.path },
        maxBuffer: 64 << 20,
      },
    );
    const { size, ids } = JSON.parse(out.toString()) as { size: number; ids: number[][] };
    writeFileSync(
      join(folder, "config.json"),
      JSON.stringify({ vocab_size: size + 3, max_position_embeddings: 64, eos_token_id: [size - 1, 0] }),
    );
    const tokenizer = loadTokenizer(folder);
    expect(tokenizer.vocabSize).toBe(size + 3);
    for (const [i, text] of given.entries()) expect([text, tokenizer.encode(text)]).toEqual([text, ids[i]]);
    expect(tokenizer.isControl(size - 1)).toBe(true);
    expect(tokenizer.decode([size + 1, ...tokenizer.encode("the 漢字")])).toBe("the 漢字");
  });
});

describe("chats", () => {
  const render = (
    patch: { added?: string[]; template: string; eos: number },
    messages: Parameters<ReturnType<typeof loadTokenizer>["encodeChat"]>[0],
  ) => {
    const folder = mkdtempSync(join(dir, "c-"));
    writeTinyCheckpoint(folder);
    const file = JSON.parse(readFileSync(join(folder, "tokenizer.json"), "utf8")) as { added_tokens: object[] };
    const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as object;
    const added = (patch.added ?? []).map((content, i) => ({ id: 262 + i, content, special: true }));
    // Without ChatML's tokens it is the other family.
    const kept = added.length > 0 ? [] : file.added_tokens;
    writeFileSync(join(folder, "tokenizer.json"), JSON.stringify({ ...file, added_tokens: [...kept, ...added] }));
    writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, vocab_size: 262 + added.length, eos_token_id: [0, patch.eos] }));
    writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify({ chat_template: patch.template }));
    const tokenizer = loadTokenizer(folder);
    return {
      text: tokenizer
        .encodeChat(messages)
        .map((id) => (id >= 262 ? patch.added![id - 262]! : id === 1 ? "<S>" : id === 2 ? "<E>" : tokenizer.decode([id])))
        .join(""),
      tokenizer,
    };
  };
  const user = { role: "user", content: " Hi " } as const;

  test("ChatML has the default system message that the template's text holds, and none where it holds none", () => {
    const smol = "{{ '<|im_start|>system\nYou are X<|im_end|>\n' }}";
    expect(render({ template: smol, eos: 2 }, [user]).text).toBe("<S>system\nYou are X<E>\n<S>user\n Hi <E>\n<S>assistant\n");
    const qwen = "{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}";
    const { text, tokenizer } = render({ template: qwen, eos: 2 }, [user]);
    expect(text).toBe("<S>user\n Hi <E>\n<S>assistant\n");
    expect([tokenizer.eosId, tokenizer.chat.defaultSystem]).toEqual([2, false]);
  });

  test("Llama 3.1's headers, its dates, and contents trimmed as its template does", () => {
    const added = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"];
    const dates = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
    const h = (role: string) => `<|start_header_id|>${role}<|end_header_id|>\n\n`;
    const { text, tokenizer } = render({ added, template: "… Cutting Knowledge Date …", eos: 265 }, [
      { role: "system", content: "Be brief. " },
      user,
    ]);
    expect(text).toBe(`<|begin_of_text|>${h("system")}${dates}Be brief.<|eot_id|>${h("user")}Hi<|eot_id|>${h("assistant")}`);
    expect(tokenizer.eosId).toBe(265);
    expect(render({ added, template: "", eos: 265 }, [user]).text).toBe(`<|begin_of_text|>${h("user")}Hi<|eot_id|>${h("assistant")}`);
  });

  test("what is not known is refused, not guessed", () => {
    expect(() => render({ added: ["<a>"], template: "", eos: 0 }, [user])).toThrow(/neither ChatML nor Llama 3's/);
    const folder = mkdtempSync(join(dir, "p-"));
    writeTinyCheckpoint(folder);
    const file = JSON.parse(readFileSync(join(folder, "tokenizer.json"), "utf8")) as object;
    writeFileSync(join(folder, "tokenizer.json"), JSON.stringify({ ...file, pre_tokenizer: { type: "Metaspace" } }));
    expect(() => loadTokenizer(folder)).toThrow(/pre-tokenizer is neither/);
    writeFileSync(join(folder, "tokenizer.json"), JSON.stringify({ ...file, normalizer: { type: "Lowercase" } }));
    expect(() => loadTokenizer(folder)).toThrow(/no normalizer or NFC/);
  });
});
