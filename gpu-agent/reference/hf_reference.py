"""The evaluator's reference for a Hugging Face checkpoint: transformers' own model, float32 where that fits, else bfloat16, and it says which.

hf_reference.py FOLDER [--threads N] [--device auto|cpu|cuda|mps] [--type auto|float32|bfloat16]

Serves score requests on stdin and stdout (the frames of protocol.hpp) until stdin ends. Exit 2: bad arguments, model or memory; 3: a broken frame.
Shares no code with stacks/.
"""

import argparse
import glob
import json
import math
import os
import struct
import sys
from typing import Any, Dict, List, NamedTuple, Tuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

REQUEST, ANSWER = 0x51525356, 0x53525356
MAX_TOKENS, MAX_SEQUENCES, MAX_EXTRAS = 16384, 4096, 65536
TOP = 64
#: Padded tokens of one pass: with 150,000 ids their logits take 1.2 GB as float32.
BATCH = 2048
#: Beside the weights: logits of a pass, twice, activations, the framework.
SPARE_BYTES = 4 * 2**30


class Sequence(NamedTuple):
    tokens: List[int]
    start: int
    extras: List[Tuple[int, int]]


class BrokenFrame(Exception):
    pass


def parameters(folder: str) -> int:
    """Of what is stored, from the headers of its files; a quantised matrix counts for what it unpacks to."""
    total = 0
    for path in glob.glob(os.path.join(folder, "*.safetensors")):
        with open(path, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        for name, entry in header.items():
            if name != "__metadata__":
                total += math.prod(entry["shape"]) * (8 if entry["dtype"] == "U32" else 1)
    return total


def free_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    if os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4


def choose(folder: str, device: str, kind: str) -> Tuple[str, torch.dtype]:
    """The first that fits of: float32 on the accelerator, float32 on the host, bfloat16 on the accelerator, bfloat16 on the host."""
    mps = getattr(torch.backends, "mps", None)
    here = ["cuda"] if torch.cuda.is_available() else ["mps"] if mps is not None and mps.is_available() else []
    devices = [*here, "cpu"] if device == "auto" else [device]
    kinds = ["float32", "bfloat16"] if kind == "auto" else [kind]
    count, tried = parameters(folder), []
    for k in kinds:
        for d in devices:
            need, free = count * (4 if k == "float32" else 2) + SPARE_BYTES, free_bytes(d)
            if need <= free:
                return d, getattr(torch, k)
            tried.append(f"{k} on {d}: {need / 2**30:.1f} GiB of {free / 2**30:.1f} free")
    raise MemoryError(f"the reference fits nowhere: {'; '.join(tried)}")


def unpack(folder: str, quantization: Dict[str, int]) -> Dict[str, torch.Tensor]:
    """Weights that mlx-lm has quantised: each row holds groups of values q (bits wide, lowest bits first) that stand for q · scale + bias."""
    from safetensors.torch import load_file

    raw: Dict[str, torch.Tensor] = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        raw.update(load_file(path))
    bits, group = quantization["bits"], quantization["group_size"]
    weights = {}
    for name, tensor in raw.items():
        if name.endswith((".scales", ".biases")):
            continue
        stem = name[: -len(".weight")] if name.endswith(".weight") else name
        if stem + ".scales" not in raw:
            weights[name] = tensor
            continue
        if 32 % bits != 0:
            raise ValueError(f"{bits}-bit weights can't be unpacked; served are 2, 4 and 8")
        words = tensor.view(torch.int32).to(torch.int64) & 0xFFFFFFFF
        shifts = torch.arange(0, 32, bits)
        values = ((words[..., None] >> shifts) & (2**bits - 1)).reshape(len(words), -1, group).float()
        scales, biases = raw[stem + ".scales"].float(), raw[stem + ".biases"].float()
        weights[name] = (values * scales[..., None] + biases[..., None]).reshape(len(words), -1)
    return weights


def load(folder: str, device: str, kind: torch.dtype) -> Any:
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        quantization = json.load(file).get("quantization")
    if quantization is None:
        key = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, attn_implementation="eager", **{key: kind})
    else:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        for name in ("quantization", "quantization_config"):
            if hasattr(config, name):
                delattr(config, name)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(kind)
        missing, unexpected = model.load_state_dict({k: v.to(kind) for k, v in unpack(folder, quantization).items()}, strict=False)
        if unexpected or [m for m in missing if "lm_head" not in m]:
            raise ValueError(f"the checkpoint lacks {missing[:3]} or has {unexpected[:3]} besides")
    return model.to(device).eval()


class Reference:
    def __init__(self, folder: str, device: str, kind: torch.dtype) -> None:
        self.model = load(folder, device, kind)
        self.device = device
        config = self.model.config
        self.vocab, self.context, self.layers = config.vocab_size, config.max_position_embeddings, config.num_hidden_layers
        self.top = min(TOP, self.vocab)

    def problem(self, sequences: List[Sequence]) -> str:
        inside = lambda t: 0 <= t < self.vocab  # noqa: E731
        for s in sequences:
            if not s.tokens:
                return "a sequence is empty"
            if len(s.tokens) > self.context:
                return f"a sequence is longer than the context of {self.context}"
            if s.start >= len(s.tokens):
                return "`from` lies behind the end of its sequence"
            if not all(map(inside, s.tokens)):
                return "a token id is outside the vocabulary"
            if not all(inside(t) and s.start <= p < len(s.tokens) for p, t in s.extras):
                return "an extra lies outside the vocabulary or the wanted positions"
        return ""

    @torch.no_grad()
    def score(self, sequences: List[Sequence]) -> bytes:
        return b"".join(part for batch in batches(sequences) for part in self._batch(batch))

    def _batch(self, sequences: List[Sequence]) -> List[bytes]:
        longest = max(len(s.tokens) for s in sequences)
        ids = torch.zeros(len(sequences), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, s in enumerate(sequences):
            ids[i, : len(s.tokens)] = torch.tensor(s.tokens)
            mask[i, : len(s.tokens)] = 1
        # Padding stands behind each sequence, where causal attention can't see it.
        logits = self.model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device), use_cache=False).logits
        out = []
        for i, s in enumerate(sequences):
            logprobs = torch.log_softmax(logits[i, s.start : len(s.tokens)].float(), dim=-1)
            values, best = logprobs.topk(self.top, dim=-1)
            following = torch.tensor([*s.tokens[s.start + 1 :], 0], device=logprobs.device)
            after = logprobs.gather(1, following[:, None])[:, 0]
            after[-1] = float("nan")
            words = torch.cat([best.int(), values.view(torch.int32), after.view(torch.int32)[:, None]], dim=1)
            out.append(words.cpu().numpy().astype("<i4").tobytes())
            if s.extras:
                at = torch.tensor([(p - s.start, t) for p, t in s.extras], device=logprobs.device)
                out.append(logprobs[at[:, 0], at[:, 1]].cpu().numpy().astype("<f4").tobytes())
        return out


def batches(sequences: List[Sequence]) -> List[List[Sequence]]:
    """Neighbours together, as long as their padded size stays within BATCH; a longer sequence goes alone."""
    groups: List[List[Sequence]] = []
    for s in sequences:
        last = groups[-1] if groups else []
        if last and (len(last) + 1) * max(len(s.tokens), *(len(o.tokens) for o in last)) <= BATCH:
            last.append(s)
        else:
            groups.append([s])
    return groups


def read_exactly(size: int) -> bytes:
    data = sys.stdin.buffer.read(size)
    if len(data) < size:
        raise EOFError
    return data


def read_request() -> List[Sequence]:
    words = lambda n: struct.unpack(f"<{n}I", read_exactly(4 * n))  # noqa: E731
    (count,) = words(1)
    if count > MAX_SEQUENCES:
        raise BrokenFrame(f"request has {count} sequences, over {MAX_SEQUENCES}")
    sequences, tokens, extras = [], 0, 0
    for _ in range(count):
        length, start, more = words(3)
        tokens, extras = tokens + length, extras + more
        if tokens > MAX_TOKENS or extras > MAX_EXTRAS:
            raise BrokenFrame(f"request is over {MAX_TOKENS} tokens or {MAX_EXTRAS} extras")
        ids = list(struct.unpack(f"<{length}i", read_exactly(4 * length)))
        pairs = struct.unpack(f"<{2 * more}i", read_exactly(8 * more))
        sequences.append(Sequence(ids, start, list(zip(pairs[::2], pairs[1::2]))))
    return sequences


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("folder")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    options.add_argument("--type", default="auto", choices=("auto", "float32", "bfloat16"))
    given = options.parse_args()
    # Frames have the real stdout; whatever a library prints goes to stderr.
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def answer(request: int, status: int, payload: bytes) -> None:
        frames.write(struct.pack("<4I", ANSWER, request, status, len(payload)) + payload)
        frames.flush()

    try:
        torch.set_num_threads(given.threads)
        device, kind = choose(given.folder, given.device, given.type)
        reference = Reference(given.folder, device, kind)
    except (OSError, ValueError, KeyError, MemoryError) as error:
        print(error, file=sys.stderr)
        return 2
    kernel = f"transformers {transformers.__version__} {device} {str(kind).rsplit('.', 1)[-1]}"
    hello = dict(protocol=1, top=reference.top, vocab=reference.vocab, context=reference.context, layers=reference.layers, threads=given.threads, kernel=kernel)
    answer(0, 0, json.dumps(hello).encode())
    try:
        while True:
            magic, request = struct.unpack("<2I", read_exactly(8))
            if magic != REQUEST:
                print("stdin holds no request frame", file=sys.stderr)
                return 3
            try:
                sequences = read_request()
            except BrokenFrame as error:
                answer(request, 1, str(error).encode())
                return 3
            problem = reference.problem(sequences)
            answer(request, 1 if problem else 0, problem.encode() if problem else reference.score(sequences))
    except EOFError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
