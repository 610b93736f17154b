import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A folder that is removed when the scope ends: `using dir = tempDir("broker")`. */
export function tempDir(name: string): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), `vs-${name}-`));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true, maxRetries: 3 }) };
}
