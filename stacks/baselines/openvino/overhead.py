"""What the server costs: the engine's own calls against the same prompts through HTTP, in one process and on one pipeline.

    python overhead.py --model M.gguf [--shape waves] [--concurrency 8] [--requests 64] [--prompt 128] [--out 64] [--pairs 4] [--foreign 0.03]

Shape waves: A = pipeline.generate() of `concurrency` prompts, then of the next as many; B = as many clients that send at once, and again when all
have their answers. Shape closed: A = add_request() and step(), a new request as soon as one ends; B = clients in a closed loop. (One generate()
of all prompts is no A: with dynamic_split_fuse the engine holds far more than max_num_seqs in flight.)

Order ABBA…; prompts are fresh each pair, the same in A and B. A pair in which other processes took more than --foreign of the processors is refused
and repeated. Prints JSON: ratio = B's rate / A's, one a pair; the interval is Student's over their logarithms.
"""
import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

STUDENT_975 = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13]  # 1, 2, … degrees of freedom


def machine_cpu():
    """Seconds that all processors together were busy or stolen since boot; None where the system does not say."""
    try:
        with open("/proc/stat") as f:
            ticks = [int(x) for x in f.readline().split()[1:9]]
    except OSError:
        return None
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def quiet_moment(limit, give_up):
    """Waits until other processes leave the machine alone, or until `give_up` (monotonic)."""
    while time.monotonic() < give_up:
        before = machine_cpu()
        time.sleep(0.3)
        if before is None or (machine_cpu() - before) / 0.3 / os.cpu_count() <= max(limit, 0.04):
            return


def interval(ratios):
    logs = [math.log(r) for r in ratios]
    mean = statistics.fmean(logs)
    half = STUDENT_975[len(logs) - 2] * statistics.stdev(logs) / math.sqrt(len(logs))
    return {"point": math.exp(mean), "lo": math.exp(mean - half), "hi": math.exp(mean + half)}


class Bench:
    """The engine, its server in a thread, and the clients in a process of their own. An arm answers {"seconds", "cpu", "ids"}."""

    def __init__(self, args):
        from engine import Engine
        from server import Server, pairs
        from tokenizer import Tokenizer

        self.args, self.rng = args, random.SystemRandom()
        self.tokenizer = Tokenizer(args.model)
        self.engine = Engine(args.model, pairs(args.property), pairs(args.scheduler))
        path = os.path.join(tempfile.mkdtemp(prefix="vs-"), "s")
        threading.Thread(target=Server(path, self.engine, self.tokenizer, None).run, daemon=True).start()
        argv = [sys.executable, os.path.join(os.path.dirname(__file__), "clients.py"), path, str(args.concurrency), args.shape]
        self.clients = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def bodies(self, count):
        a = self.args
        prompts = [[self.rng.randrange(100, self.tokenizer.size) for _ in range(a.prompt + self.rng.randrange(13))] for _ in range(count)]
        fields = {"max_tokens": a.out, "temperature": 0, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
        return [{"prompt": ids, **fields} for ids in prompts]

    def alone(self, bodies):
        from api import Ask

        asks = [Ask(body, False, self.tokenizer) for body in bodies]
        start = time.monotonic()
        ids = self._waves(asks) if self.args.shape == "waves" else self._closed(asks)
        return {"seconds": time.monotonic() - start, "cpu": 0, "ids": ids}

    def _waves(self, asks):
        engine, eos, size, ids = self.engine, self.tokenizer.eos, self.args.concurrency, []
        for wave in (asks[at : at + size] for at in range(0, len(asks), size)):
            results = engine.pipeline.generate([engine.tensor(x.prompt) for x in wave], [engine.config(x, eos) for x in wave])
            ids += [list(r.m_generation_ids[0]) for r in results]
        return ids

    def _closed(self, asks):
        engine, eos, ids = self.engine, self.tokenizer.eos, [[] for _ in asks]
        waiting = list(enumerate(asks))[::-1]
        live = {}
        while waiting or live:
            while waiting and len(live) < self.args.concurrency:
                at, ask = waiting.pop()
                live[at] = engine.add(ask, eos)
            engine.pipeline.step()
            for at, handle in list(live.items()):
                tokens, finish = engine.tokens_of(handle)
                ids[at] += [token for token, _ in tokens]
                if finish:
                    del live[at]
        return ids

    def served(self, bodies):
        self.clients.stdin.write(json.dumps({"bodies": [json.dumps(b) for b in bodies]}) + "\n")
        self.clients.stdin.flush()
        return json.loads(self.clients.stdout.readline())

    def watched(self, arm, bodies):
        """An arm's answer and `foreign`, the share of the processors that other processes had meanwhile."""
        machine, own = machine_cpu(), time.process_time()
        result = arm(bodies)
        if machine is not None:
            others = machine_cpu() - machine - (time.process_time() - own) - result["cpu"]
            result["foreign"] = max(0.0, others / result["seconds"] / os.cpu_count())
        return result

    def pair(self, n):
        bodies = self.bodies(self.args.requests)
        order = (self.alone, self.served) if n % 2 == 0 else (self.served, self.alone)
        results = {arm.__name__: self.watched(arm, bodies) for arm in order}
        for ids in results["alone"]["ids"] + results["served"]["ids"]:
            if len(ids) != self.args.out:
                sys.exit(f"{len(ids)} tokens where {self.args.out} were asked for")
        engine, server = (self.args.requests * self.args.out / results[name]["seconds"] for name in ("alone", "served"))
        same = sum(a == b for a, b in zip(results["alone"]["ids"], results["served"]["ids"]))
        foreign = max(r.get("foreign", 0.0) for r in results.values())
        return {"engine": engine, "server": server, "ratio": server / engine, "foreign": foreign, "sameIds": same}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--shape", choices=("waves", "closed"), default="waves")
    for name, default in (("concurrency", 8), ("requests", 64), ("prompt", 128), ("out", 64), ("pairs", 4)):
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--foreign", type=float, default=0.03, help="share of the processors that others may take in a pair")
    p.add_argument("--limit", type=float, default=600, help="seconds after which no pair is begun")
    p.add_argument("--property", action="append", default=[])
    p.add_argument("--scheduler", action="append", default=[])
    a = p.parse_args()
    if not 2 <= a.pairs <= len(STUDENT_975) + 1:
        p.error(f"--pairs must be 2 to {len(STUDENT_975) + 1}")
    bench = Bench(a)
    warm = bench.bodies(2 * a.concurrency)
    bench.alone(warm), bench.served(warm)
    rows, refused, give_up = [], 0, time.monotonic() + a.limit
    while len(rows) < a.pairs and time.monotonic() < give_up:
        quiet_moment(a.foreign, give_up)
        row = bench.pair(len(rows))
        print(json.dumps(row), file=sys.stderr, flush=True)
        if row["foreign"] <= a.foreign:
            rows.append(row)
        else:
            refused += 1
    ratio = interval([r["ratio"] for r in rows]) if len(rows) > 1 else None
    print(json.dumps({"unit": "output tok/s", "shape": a.shape, "concurrency": a.concurrency, "ratio": ratio, "refused": refused, "pairs": rows}))
    sys.stdout.flush()
    bench.clients.kill()
    os._exit(0)  # the server's thread waits for clients for ever


if __name__ == "__main__":
    main()
