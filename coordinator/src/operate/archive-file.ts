import { createHash } from "node:crypto";
import { open, rename, rm, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { sha256 } from "@vibeserve/shared";
import { TAR_END, tarHeader, tarLongName, tarPadding } from "../checkpoint/tar.ts";

/** A plain tar: any tool lists and unpacks it. What it is made of is compressed already, or small. */
const BLOCK = 512;
const PIECE = 1024 * 1024;
/** A ustar header has room for sizes below this. */
const MAX_MEMBER = 8 ** 11;

export interface ArchivedMember {
  path: string;
  bytes: number;
  sha256: string;
}

/** Writes a tar member by member, mode 0600; it appears under its name when it is whole and on disk. */
export class ArchiveWriter implements AsyncDisposable {
  readonly members: ArchivedMember[] = [];
  readonly #path: string;
  readonly #file: FileHandle;
  #whole = false;

  private constructor(path: string, file: FileHandle) {
    this.#path = path;
    this.#file = file;
  }

  static async create(path: string): Promise<ArchiveWriter> {
    return new ArchiveWriter(path, await open(`${path}.draft`, "w", 0o600));
  }

  async add(path: string, content: Uint8Array): Promise<void> {
    if (content.length >= MAX_MEMBER) throw new RangeError(`${path} has ${content.length} bytes, too many for a tar`);
    const member = [tarLongName(path, 0o600), tarHeader(path, content.length, 0o600), content, tarPadding(content.length)];
    await this.#file.writev(member.filter((part) => part.length > 0));
    this.members.push({ path, bytes: content.length, sha256: sha256(content) });
  }

  /** The manifest goes last: an archive that ends before it was cut off. */
  async finish(path: string, manifest: string): Promise<void> {
    await this.add(path, Buffer.from(manifest));
    await this.#file.write(TAR_END);
    await this.#file.sync();
    await rename(`${this.#path}.draft`, this.#path);
    const folder = await open(dirname(this.#path), "r");
    await folder.sync().finally(() => folder.close());
    this.#whole = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
    if (!this.#whole) await rm(`${this.#path}.draft`, { force: true });
  }
}

/** The archive is not what was written; `member` is the first that is not. */
export class ArchiveDamagedError extends Error {
  readonly member: string;
  constructor(file: string, member: string, why: string) {
    super(`${file} is damaged: member ${member}: ${why}`);
    this.name = "ArchiveDamagedError";
    this.member = member;
  }
}

/** A tar on disk, every member read once and hashed; what is read later comes from where it lay. */
export class ArchiveReader implements AsyncDisposable {
  readonly members: ReadonlyMap<string, ArchivedMember & { offset: number }>;
  readonly #file: FileHandle;

  private constructor(file: FileHandle, members: ArchiveReader["members"]) {
    this.#file = file;
    this.members = members;
  }

  /** Throws ArchiveDamagedError. */
  static async open(path: string): Promise<ArchiveReader> {
    const file = await open(path, "r");
    try {
      return new ArchiveReader(file, await index(path, file));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Throws Error where there is no such member: ask `members` first. */
  async read(path: string): Promise<Buffer> {
    const member = this.members.get(path);
    if (!member) throw new Error(`no member ${path}`);
    return exactly(this.#file, member.offset, member.bytes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }
}

/** GNU tar's member that holds the name of the next. */
const LONG_NAME = "L".charCodeAt(0);
const MAX_NAME = 4_096;
const text = (bytes: Buffer, from: number, to: number): string => bytes.toString("utf8", from, to).replace(/\0.*$/s, "");

async function index(path: string, file: FileHandle): Promise<Map<string, ArchivedMember & { offset: number }>> {
  const found = new Map<string, ArchivedMember & { offset: number }>();
  const { size } = await file.stat();
  let last = "(the first)";
  let long: string | null = null;
  for (let at = 0; ;) {
    const damaged = (why: string, member = `after ${last}`) => new ArchiveDamagedError(path, member, why);
    if (at + BLOCK > size) throw damaged("the file ends where a member should begin: it was cut off");
    const header = await exactly(file, at, BLOCK);
    if (header.every((byte) => byte === 0)) return found;
    const bytes = parseInt(header.toString("latin1", 124, 136), 8);
    const next = at + BLOCK + Math.ceil(bytes / BLOCK) * BLOCK;
    const sum = parseInt(header.toString("latin1", 148, 156), 8);
    if (header.fill(" ", 148, 156).reduce((total, byte) => total + byte, 0) !== sum) throw damaged("its header's checksum is wrong");
    if (header[156] === LONG_NAME && Number.isSafeInteger(bytes) && bytes <= MAX_NAME && at + BLOCK + bytes <= size) {
      long = text(await exactly(file, at + BLOCK, bytes), 0, bytes);
      at = next;
      continue;
    }
    const name: string = long ?? text(header, 0, 100);
    long = null;
    if (!/^[A-Za-z0-9_-][A-Za-z0-9_.-]*(\/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$/.test(name))
      throw damaged("its name is none that a backup has", name);
    if (!Number.isSafeInteger(bytes) || at + BLOCK + bytes > size) throw damaged(`the file ends in the middle of its ${bytes} bytes`, name);
    if (found.has(name)) throw damaged("it is there twice", name);
    const hash = createHash("sha256");
    for (let done = 0; done < bytes; done += PIECE) hash.update(await exactly(file, at + BLOCK + done, Math.min(PIECE, bytes - done)));
    found.set(name, { path: name, bytes, sha256: hash.digest("hex"), offset: at + BLOCK });
    last = name;
    at = next;
  }
}

async function exactly(file: FileHandle, offset: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes);
  const { bytesRead } = await file.read(buffer, 0, bytes, offset);
  if (bytesRead !== bytes) throw new Error(`read ${bytesRead} of ${bytes} bytes at ${offset}`);
  return buffer;
}
