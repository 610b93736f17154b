import { Packr } from "msgpackr";
import type { z } from "zod";

/** NATS' own limit is 1 MiB; a message over 256 KiB belongs in the artifact store, and only its reference here. */
export const MAX_MESSAGE_BYTES = 256 * 1024;

const packr = new Packr({ useRecords: false, encodeUndefinedAsNil: false, mapsAsObjects: true });

export class CodecError extends Error {
  readonly subject: string;
  constructor(subject: string, message: string) {
    super(`${subject}: ${message}`);
    this.name = "CodecError";
    this.subject = subject;
  }
}

/** msgpack bytes of a message; checks it against its schema first, so that nothing malformed leaves this process. */
export function encode<S extends z.ZodType>(schema: S, value: z.input<S>, subject: string): Uint8Array {
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new CodecError(subject, `message refused before sending: ${issuesOf(parsed.error)}`);
  const bytes = packr.pack(parsed.data);
  if (bytes.length > MAX_MESSAGE_BYTES) throw new CodecError(subject, `${bytes.length} bytes are over the limit of ${MAX_MESSAGE_BYTES}`);
  return bytes;
}

/** Parsed once at the edge; throws CodecError naming the subject and the path of what is wrong. */
export function decode<S extends z.ZodType>(schema: S, bytes: Uint8Array, subject: string): z.output<S> {
  if (bytes.length > MAX_MESSAGE_BYTES) throw new CodecError(subject, `${bytes.length} bytes are over the limit of ${MAX_MESSAGE_BYTES}`);
  let raw: unknown;
  try {
    raw = packr.unpack(bytes);
  } catch (cause) {
    throw new CodecError(subject, `not msgpack: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
  const parsed = schema.safeParse(raw);
  if (!parsed.success) throw new CodecError(subject, issuesOf(parsed.error));
  return parsed.data;
}

/** What is wrong and where, in one line: `path.to.member: message; …`, five at the most. */
export function issuesOf(error: z.ZodError): string {
  return error.issues
    .slice(0, 5)
    .map((i) => `${i.path.join(".") || "(root)"}: ${i.message}`)
    .join("; ");
}
