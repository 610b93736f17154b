/** Never shown, nor anything in them: they describe this machine, and a sandbox has its own of most. */
const SYSTEM = ["/etc", "/proc", "/sys", "/dev", "/run", "/boot"];

/** Is it that folder, or in it? */
export const within = (path: string, folder: string): boolean => path === folder || path.startsWith(folder === "/" ? "/" : `${folder}/`);

/** Those that lie in no other of them, each once. */
export const outermost = (paths: readonly string[]): string[] =>
  [...new Set(paths)].filter((path) => !paths.some((other) => other !== path && within(path, other)));

/** Why a folder may not be shown to candidates, in words; null: it may. */
export function forbidden(path: string, data: string, home: string): string | null {
  if (path.split("/").length <= 2) return `${path} is a whole top-level folder`;
  if (SYSTEM.some((folder) => within(path, folder))) return "that is the system's own";
  if (within(home, path) || /^\/(home|Users)\/[^/]+$/.test(path)) return "that is a home folder as a whole";
  if (within(data, path) || within(path, data)) return "the agent's private folder is in it, or it in that";
  return null;
}
