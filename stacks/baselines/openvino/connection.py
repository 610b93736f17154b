"""One client of the server: HTTP/1.1 with keep-alive, as much of it as the contract needs."""
import json

from api import BadRequest

HEAD_BYTES, BODY_BYTES = 64 * 1024, 64 * 2**20


class Connection:
    """One client: bytes in, bytes out, at most one request at a time."""

    def __init__(self, sock):
        self.sock, self.inbox, self.outbox = sock, bytearray(), bytearray()
        self.answer = self.handle = None
        self.busy = self.closing = self.writing = False

    def take_request(self):
        """(method, path, body) once a whole request is there, else None. Raises BadRequest for what is no HTTP that is served here."""
        end = self.inbox.find(b"\r\n\r\n", 0, HEAD_BYTES)
        if end < 0:
            if len(self.inbox) > HEAD_BYTES:
                raise BadRequest("the request's head is too long")
            return None
        lines = self.inbox[:end].decode("latin1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        first, length = lines[0].split(" "), headers.get("content-length", "0")
        if len(first) != 3 or not length.isdigit() or int(length) > BODY_BYTES or "transfer-encoding" in headers:
            raise BadRequest("bad request line, or a body without a content-length of at most 64 MiB")
        if len(self.inbox) < end + 4 + int(length):
            if headers.get("expect", "").lower() == "100-continue" and not self.outbox:
                self.outbox += b"HTTP/1.1 100 Continue\r\n\r\n"
            return None
        body = bytes(self.inbox[end + 4 : end + 4 + int(length)])
        del self.inbox[: end + 4 + int(length)]
        self.closing = headers.get("connection", "").lower() == "close"
        return first[0], first[1].split("?")[0], body

    def reply(self, status, body):
        data = json.dumps(body).encode()
        reason = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}.get(status, "Internal Server Error")
        self.outbox += f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
