import { accessSync, constants, realpathSync, statSync } from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";

/** Where a CLI is: its program without links, and what must be seen to run it. */
export interface Installation {
  program: string;
  folders: readonly string[];
}

/**
 * Looks for a CLI on PATH; null: it is not installed. Its folder is the npm package that its program lies in (with the packages within), or else the
 * program alone: vendors' own installers give a single file. What is laid out otherwise is named by the recipe's `folders`.
 */
export function findInstallation(program: string, path: string, folders: readonly string[]): Installation | null {
  for (const folder of path.split(delimiter).filter(isAbsolute)) {
    const place = join(folder, program);
    try {
      if (!statSync(place).isFile()) continue;
      accessSync(place, constants.X_OK);
    } catch {
      continue;
    }
    const real = realpathSync(place);
    const [npmPackage] = /^.*?\/node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(real) ?? [];
    return { program: real, folders: [...(folders.length > 0 ? folders.map((f) => realpathSync(f)) : [npmPackage ?? real])] };
  }
  return null;
}
