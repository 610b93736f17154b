"""The clients of overhead.py: mostly asleep, nothing parsed before the clock has stopped. argv: SOCKET CONCURRENCY waves|closed.

A line {"bodies": […]} on stdin is answered by {"seconds", "cpu", "ids"} on stdout. waves: `concurrency` requests at once, the next when all of them
have their answers; closed: each connection sends the next one when its last has ended.
"""
import json
import selectors
import socket
import sys
import time

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: local\r\nContent-Length: %d\r\n\r\n"
END = b"\r\n0\r\n\r\n"


def drive(sockets, requests, waves):
    """The answers' bytes, in the order of the requests."""
    answers, waiting = [bytearray() for _ in requests], list(range(len(requests)))[::-1]
    selector, free, unanswered = selectors.DefaultSelector(), list(sockets), len(requests)
    serves = {}
    for s in sockets:
        selector.register(s, selectors.EVENT_READ)
    while unanswered:
        if not waves or len(free) == len(sockets):
            while free and waiting:
                s, at = free.pop(), waiting.pop()
                serves[s] = at
                s.sendall(requests[at])
        for key, _ in selector.select():
            data = key.fileobj.recv(65536)
            if not data:
                sys.exit("the server closed a connection")
            answer = answers[serves[key.fileobj]]
            answer += data
            if answer.endswith(END):
                unanswered -= 1
                free.append(key.fileobj)
    return answers


def ids_of(answer):
    lines = answer.decode().split("\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ") and line[6:] != "[DONE]"]
    return [i for e in events for c in e["choices"] for i in c["token_ids"]]


def main():
    path, concurrency, shape = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    for line in sys.stdin:
        requests = [HEAD % len(b) + b for b in (body.encode() for body in json.loads(line)["bodies"])]
        sockets = [socket.socket(socket.AF_UNIX) for _ in range(concurrency)]
        for s in sockets:
            s.connect(path)
        start, used = time.monotonic(), time.process_time()
        answers = drive(sockets, requests, shape == "waves")
        seconds, used = time.monotonic() - start, time.process_time() - used
        for s in sockets:
            s.close()
        print(json.dumps({"seconds": seconds, "cpu": used, "ids": [ids_of(a) for a in answers]}), flush=True)


if __name__ == "__main__":
    main()
