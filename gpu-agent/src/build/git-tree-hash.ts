import { createHash } from "node:crypto";
import type { TreeFile } from "./tar-reader.ts";

type Node = { readonly kind: "file"; readonly file: TreeFile } | { readonly kind: "folder"; readonly entries: Map<string, Node> };

/**
 * Git's hash of a tree that holds these files: a candidate's identity, computed from its bytes so that nobody has to be believed. sha1 or sha256 as the
 * repository uses; 40 or 64 hex digits.
 */
export function gitTreeHash(files: readonly TreeFile[], algorithm: "sha1" | "sha256"): string {
  const root = new Map<string, Node>();
  for (const file of files) {
    const parts = file.path.split("/");
    const name = parts.pop() ?? "";
    let folder = root;
    for (const part of parts) {
      const next = folder.get(part);
      if (next?.kind === "folder") folder = next.entries;
      else {
        const entries = new Map<string, Node>();
        folder.set(part, { kind: "folder", entries });
        folder = entries;
      }
    }
    folder.set(name, { kind: "file", file });
  }
  return hashFolder(root, algorithm).toString("hex");
}

function hashFolder(entries: Map<string, Node>, algorithm: string): Buffer {
  const rows = [...entries].map(([name, node]) => ({
    name,
    // Git sorts by bytes, and a folder as if its name ended in a slash.
    key: Buffer.from(node.kind === "folder" ? `${name}/` : name),
    mode: node.kind === "folder" ? "40000" : node.file.executable ? "100755" : "100644",
    hash: node.kind === "folder" ? hashFolder(node.entries, algorithm) : hashObject("blob", node.file.bytes, algorithm),
  }));
  rows.sort((a, b) => Buffer.compare(a.key, b.key));
  const body = Buffer.concat(rows.flatMap((r) => [Buffer.from(`${r.mode} ${r.name}\0`), r.hash]));
  return hashObject("tree", body, algorithm);
}

function hashObject(type: string, body: Uint8Array, algorithm: string): Buffer {
  return createHash(algorithm).update(`${type} ${body.length}\0`).update(body).digest();
}
