import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { destination, pino, type Logger } from "pino";

export type EventLogger = (event: string, facts: Record<string, unknown>) => void;

/** Events whose names end like this are worth a person's attention. */
const WARNING = /\.(died|failed|refused|full|lost|unreadable|restart-failed|replaced|not-expired)$/;

/** Of lines that nobody reads: memory is not for those, and the file has them. */
const UNREAD_BYTES = 4 * 2 ** 20;

/**
 * A process's log in `<data>/logs/<name>.log`, one JSON object a line; toStdout: the same lines there too, but for those that come while 4 MiB wait to be read. Seeds and keys never reach it.
 */
export function openLog(data: string, name: string, level: string, toStdout = false): Logger {
  mkdirSync(join(data, "logs"), { recursive: true, mode: 0o700 });
  const file = destination({ dest: join(data, "logs", `${name}.log`), sync: true, mode: 0o600 });
  // Who reads it may go; the file is written all the same.
  if (toStdout) process.stdout.on("error", () => undefined);
  const both = {
    write: (line: string) => {
      file.write(line);
      if (process.stdout.writableLength < UNREAD_BYTES) process.stdout.write(line);
    },
  };
  return pino({ level, base: { process: name, pid: process.pid }, redact: ["seed", "*.seed", "seeds", "*.seeds"] }, toStdout ? both : file);
}

/** Logs named events with their facts. */
export function eventLogger(log: Logger): EventLogger {
  return (event, facts) => (WARNING.test(event) ? log.warn({ event, ...facts }) : log.info({ event, ...facts }));
}
