"""What the server costs: the engine's own batch call against the same prompts through HTTP, in one process and on one pipeline.

    python overhead.py --model M.gguf [--concurrency 8] [--requests 64] [--prompt 128] [--out 64] [--pairs 4] [--foreign 0.03] [--property …]

A = pipeline.generate() of all requests, with max_num_seqs = concurrency, so that the engine itself keeps that many in flight; B = as many
clients in a closed loop (a process of its own, mostly asleep). Order ABBA…; prompts are fresh each pair, the same in A and B, and the ids must
agree. A pair in which other processes took more than --foreign of the processors is refused and repeated. Prints JSON: ratio = B's rate / A's,
one a pair; the interval is Student's over their logarithms.
"""
import argparse
import json
import math
import os
import random
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

STUDENT_975 = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13]  # 1, 2, … degrees of freedom


def client(path, concurrency):
    """A closed loop: reads {"bodies": […]} lines, answers {"seconds", "cpu", "ids"} lines; parses nothing before the clock has stopped."""
    for line in sys.stdin:
        bodies = [b.encode() for b in json.loads(line)["bodies"]]
        head = b"POST /v1/completions HTTP/1.1\r\nHost: local\r\nContent-Length: %d\r\n\r\n"
        waiting, selector, answers = list(enumerate(bodies))[::-1], selectors.DefaultSelector(), [bytearray() for _ in bodies]

        def send(sock):
            at, body = waiting.pop()
            sock.sendall(head % len(body) + body)
            return at

        sockets = [socket.socket(socket.AF_UNIX) for _ in range(concurrency)]
        for s in sockets:
            s.connect(path)
        start, used = time.monotonic(), time.process_time()
        for s in sockets:
            selector.register(s, selectors.EVENT_READ, send(s))
        open_answers = len(bodies)
        while open_answers:
            for key, _ in selector.select():
                data = key.fileobj.recv(65536)
                if not data:
                    sys.exit("the server closed a connection")
                answers[key.data] += data
                if data.endswith(b"\r\n0\r\n\r\n"):
                    open_answers -= 1
                    if waiting:
                        selector.modify(key.fileobj, selectors.EVENT_READ, send(key.fileobj))
        seconds, used = time.monotonic() - start, time.process_time() - used
        for s in sockets:
            s.close()
        ids = [[i for e in events_of(a) for c in e["choices"] for i in c["token_ids"]] for a in answers]
        print(json.dumps({"seconds": seconds, "cpu": used, "ids": ids}), flush=True)


def events_of(answer):
    lines = answer.decode().split("\n")
    return [json.loads(line[6:]) for line in lines if line.startswith("data: ") and line[6:] != "[DONE]"]


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


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    for name, default in (("concurrency", 8), ("requests", 64), ("prompt", 128), ("out", 64), ("pairs", 4)):
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--foreign", type=float, default=0.03, help="share of the processors that others may take in a pair")
    p.add_argument("--limit", type=float, default=600, help="seconds after which no pair is begun")
    p.add_argument("--property", action="append", default=[])
    p.add_argument("--scheduler", action="append", default=[])
    a = p.parse_args()
    if not 2 <= a.pairs <= len(STUDENT_975) + 1:
        p.error(f"--pairs must be 2 to {len(STUDENT_975) + 1}")

    from api import Ask
    from engine import Engine
    from server import Server, pairs
    from tokenizer import Tokenizer

    tokenizer = Tokenizer(a.model)
    engine = Engine(a.model, pairs(a.property), {**pairs(a.scheduler), "max_num_seqs": str(a.concurrency)})
    path = os.path.join(tempfile.mkdtemp(prefix="vs-"), "s")
    server = Server(path, engine, tokenizer, None)
    threading.Thread(target=server.run, daemon=True).start()
    load = subprocess.Popen(
        [sys.executable, __file__, "--client", path, str(a.concurrency)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    rng = random.SystemRandom()

    def bodies(count):
        asks = [[rng.randrange(100, tokenizer.size) for _ in range(a.prompt + rng.randrange(13))] for _ in range(count)]
        fields = {"max_tokens": a.out, "temperature": 0, "ignore_eos": True}
        return [{"prompt": ids, **fields, "stream": True, "stream_options": {"include_usage": True}} for ids in asks]

    def batch(work):
        asks = [Ask(body, False, tokenizer) for body in work]
        start = time.monotonic()
        results = engine.pipeline.generate([engine.tensor(x.prompt) for x in asks], [engine.config(x, tokenizer.eos) for x in asks])
        seconds = time.monotonic() - start
        return {"seconds": seconds, "cpu": 0, "ids": [list(r.m_generation_ids[0]) for r in results]}

    def served(work):
        load.stdin.write(json.dumps({"bodies": [json.dumps(b) for b in work]}) + "\n")
        load.stdin.flush()
        return json.loads(load.stdout.readline())

    def run(arm, work):
        machine, own = machine_cpu(), time.process_time()
        result = arm(work)
        if machine is not None:
            others = machine_cpu() - machine - (time.process_time() - own) - result["cpu"]
            result["foreign"] = max(0.0, others / result["seconds"] / os.cpu_count())
        return result

    def pair(n):
        work = bodies(a.requests)
        results = {arm: run(arm, work) for arm in ((batch, served) if n % 2 == 0 else (served, batch))}
        same = 0
        for one, other in zip(results[batch]["ids"], results[served]["ids"]):
            if len(one) != a.out or len(other) != a.out:
                sys.exit(f"{len(one)} and {len(other)} tokens where {a.out} were asked for")
            same += one == other
        rates = {name: a.requests * a.out / results[arm]["seconds"] for name, arm in (("engine", batch), ("server", served))}
        foreign = max(r.get("foreign", 0.0) for r in results.values())
        return {**rates, "ratio": rates["server"] / rates["engine"], "foreign": foreign, "sameIds": same}

    warm = bodies(2 * a.concurrency)
    batch(warm), served(warm)
    rows, refused, give_up = [], 0, time.monotonic() + a.limit
    while len(rows) < a.pairs and time.monotonic() < give_up:
        quiet_moment(a.foreign, give_up)
        row = pair(len(rows))
        print(json.dumps(row), file=sys.stderr, flush=True)
        if row["foreign"] <= a.foreign:
            rows.append(row)
        else:
            refused += 1
    load.stdin.close()
    ratio = interval([r["ratio"] for r in rows]) if len(rows) > 1 else None
    print(json.dumps({"unit": "output tok/s", "concurrency": a.concurrency, "ratio": ratio, "refused": refused, "pairs": rows}))
    sys.stdout.flush()
    os._exit(0)  # the server's thread waits for clients for ever


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        client(sys.argv[2], int(sys.argv[3]))
    else:
        main()
