import { SetupError } from "./setup-error.ts";

interface Cause {
  pattern: RegExp;
  detail: string;
  fix: string;
}

/** What pip's and the system's words mean for a user. The first match wins: a full disk may also break the connection that fills it. */
const causes: readonly Cause[] = [
  {
    pattern: /No space left on device|Errno 28|Disk quota exceeded|Errno 122|File too large|Errno 27|File size limit exceeded/i,
    detail: "the disk is full",
    fix: "free space there, or point XDG_CACHE_HOME (the cache) and TMPDIR (pip's own files) at another disk",
  },
  {
    pattern: /certificate verify failed|CERTIFICATE_VERIFY|SSLError/i,
    detail: "the package index's certificate is not trusted here",
    fix: "set pip's `cert` (PIP_CERT) to your organisation's certificate",
  },
  {
    pattern:
      /NewConnectionError|Failed to establish a new connection|Temporary failure in name resolution|Name or service not known|nodename nor servname|Connection refused|Connection reset|Network is unreachable|No route to host|ConnectTimeoutError|Read timed out|ReadTimeoutError|ProxyError|Max retries exceeded|RemoteDisconnected/i,
    detail: "no network: the Python package index cannot be reached",
    fix: "connect this machine to the network, or name your mirror or proxy in pip's configuration (PIP_INDEX_URL, HTTPS_PROXY); what was fetched once is reused without a network",
  },
  {
    pattern: /Permission denied|Errno 13|Read-only file system|Errno 30/i,
    detail: "a folder cannot be written",
    fix: "make the cache folder writable for your user, or point XDG_CACHE_HOME at one that is",
  },
  {
    pattern: /No matching distribution found|Could not find a version/i,
    detail: "the package index that pip uses has no such wheel for this machine",
    fix: "check `python3 -m pip config list`: a mirror may lack it; a pip older than 20.3 does not know its platform tag (`python3 -m pip install --user --upgrade pip`)",
  },
];

/** Says why pip (or the unpacking) failed, from what it printed, `subject` being what was fetched. */
export function explainFailure(step: string, subject: string, text: string): SetupError {
  const cause = causes.find(({ pattern }) => pattern.test(text));
  const lines = text.trim().split("\n");
  if (cause === undefined)
    return new SetupError(step, `${subject} could not be fetched: ${lines.slice(-3).join(" / ")}`, "see that message");
  const said = lines.findLast((line) => cause.pattern.test(line)) ?? "";
  return new SetupError(step, `${subject}: ${cause.detail} (${said.trim().slice(0, 300)})`, cause.fix);
}

/** The same for an error of the file system; other errors are returned as they are. */
export function explainSystemError(step: string, subject: string, error: unknown): unknown {
  if (!(error instanceof Error) || !("code" in error)) return error;
  const text = new Map<unknown, string>([
    ["ENOSPC", "No space left on device"],
    ["EDQUOT", "Disk quota exceeded"],
    ["EFBIG", "File too large"],
    ["EACCES", "Permission denied"],
    ["EPERM", "Permission denied"],
    ["EROFS", "Read-only file system"],
  ]).get(error.code);
  return text === undefined ? error : explainFailure(step, subject, `${text}: ${error.message}`);
}
