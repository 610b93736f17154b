import { simpleGit, type SimpleGit } from "simple-git";

/** A git command on a campaign's repository answers in milliseconds; a minute without output means a broken disk. */
const BLOCK_MS = 60_000;

const ENVIRONMENT = ["GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_GLOBAL", "GIT_TERMINAL_PROMPT", "GIT_OPTIONAL_LOCKS", "GIT_ATTR_NOSYSTEM"];

/**
 * git that knows nothing of the user: no system or global configuration, no home, no prompts. `input` is what the command reads.
 * path: where executables are looked for.
 */
export function safeGit(folder: string, path: string, input?: Buffer): SimpleGit {
  return simpleGit({
    baseDir: folder,
    maxConcurrentProcesses: 2,
    timeout: { block: BLOCK_MS },
    allowEnvironment: ENVIRONMENT,
    // The only configuration path that is set is /dev/null.
    unsafe: { allowUnsafeConfigPaths: true },
    ...(input ? { input: () => input } : {}),
  }).env({
    PATH: path,
    LC_ALL: "C",
    HOME: "/nonexistent",
    GIT_CONFIG_NOSYSTEM: "1",
    GIT_CONFIG_GLOBAL: "/dev/null",
    GIT_ATTR_NOSYSTEM: "1",
    GIT_TERMINAL_PROMPT: "0",
    GIT_OPTIONAL_LOCKS: "0",
  });
}

/**
 * The repository's whole configuration, written as a file: nothing of it comes from elsewhere, and hooks, filters, file monitors, signatures and
 * automatic clean-up, all of which would run programs, are off.
 */
export const REPOSITORY_CONFIG = `[core]
	repositoryformatversion = 0
	filemode = true
	bare = true
	hooksPath = /dev/null
	attributesFile = /dev/null
	excludesFile = /dev/null
	fsmonitor = false
	symlinks = false
	autocrlf = false
	protectHFS = true
	protectNTFS = true
	fsync = all
[commit]
	gpgSign = false
[tag]
	gpgSign = false
[gc]
	auto = 0
[maintenance]
	auto = false
[protocol]
	allow = never
`;

/** info/attributes outranks any .gitattributes: files go in and out byte for byte. */
export const REPOSITORY_ATTRIBUTES = "* -text -eol -ident -filter -working-tree-encoding -export-subst -export-ignore -diff -merge\n";
