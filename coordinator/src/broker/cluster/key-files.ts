import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ConfigError } from "../../config.ts";
import { writePrivate } from "../principals.ts";
import type { KeyStore } from "./key-folders.ts";

/** Keys in folders of `dir`: files of mode 0600 in folders of mode 0700. A folder appears whole or not at all. */
export function keyFiles(dir: string): KeyStore {
  return {
    nameOf: (folder) => join(dir, folder),
    read: (folder) => {
      const path = join(dir, folder);
      if (!existsSync(path)) return Promise.resolve(null);
      return Promise.resolve(Object.fromEntries(readdirSync(path).map((name) => [name, readFileSync(join(path, name), "utf8")])));
    },
    create: (folder, files) => {
      const [path, draft] = [join(dir, folder), join(dir, `.${folder}.${process.pid}.draft`)];
      mkdirSync(draft, { recursive: true, mode: 0o700 });
      try {
        for (const [name, text] of Object.entries(files)) writePrivate(join(draft, name), text);
        // Fails where another run has put files there meanwhile.
        renameSync(draft, path);
      } catch (error) {
        rmSync(draft, { recursive: true, force: true });
        throw new ConfigError(`${path}: ${error instanceof Error ? error.message : String(error)}`);
      }
      return Promise.resolve();
    },
  };
}
