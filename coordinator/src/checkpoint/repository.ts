import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ArtifactRef, Git } from "@vibeserve/shared";
import { checkCandidateFiles, isScript, readCandidateFiles, sortedPaths, type CandidateFiles } from "./candidate-files.ts";
import { REPOSITORY_ATTRIBUTES, REPOSITORY_CONFIG, safeGit } from "./safe-git.ts";
import { tarOf } from "./tar.ts";

export interface CheckpointDeps {
  /** Folder of all campaigns' repositories. */
  dir: string;
  /** PATH of the git processes. */
  path: string;
  putArtifact: (bytes: Uint8Array) => Promise<ArtifactRef>;
}

export interface Candidate {
  /** "seed" or an experiment's id: names the ref that keeps the commit. */
  experimentId: string;
  files: CandidateFiles;
  message: string;
  /** Commit that it builds on; null for the first. */
  parent: string | null;
  /** Date of the commit, ms since the epoch: part of its identity, so it must come from the campaign's events. */
  at: number;
}

const AUTHOR = "VibeServe <vibeserve@localhost>";
const championBranch = (campaign: string) => `champion/${campaign}`;

/**
 * One bare repository a campaign, `<dir>/<campaign>.git`, one commit a candidate.
 *   G1. The same candidate is the same commit, whenever and however often it is made: a restart repeats without a trace.
 *   G2. No program runs but git itself, and it reads nothing of the user's configuration.
 *   G3. Bytes go in and out unchanged: no filter, no line-end conversion.
 */
export class CampaignRepository {
  readonly #deps: CheckpointDeps;
  readonly #campaign: string;
  readonly #folder: string;

  private constructor(deps: CheckpointDeps, campaign: string) {
    this.#deps = deps;
    this.#campaign = campaign;
    this.#folder = join(deps.dir, `${campaign}.git`);
  }

  /** Opens the campaign's repository, making it on first use. */
  static async open(deps: CheckpointDeps, campaign: string): Promise<CampaignRepository> {
    const repository = new CampaignRepository(deps, campaign);
    await repository.#init();
    return repository;
  }

  get folder(): string {
    return this.#folder;
  }

  /** Commits the candidate's files and stores their tar. Throws CandidateFilesError for a tree that is not allowed. */
  async commitTree(candidate: Candidate): Promise<Git> {
    checkCandidateFiles(candidate.files);
    const ref = `refs/experiments/${candidate.experimentId}`;
    await safeGit(this.#folder, this.#deps.path, importStream(ref, candidate)).raw("fast-import", "--quiet", "--force", "--done");
    const [commit = "", treeDigest = ""] = (await this.#git("rev-parse", ref, `${ref}^{tree}`)).trim().split("\n");
    return { commit, treeDigest, tree: await this.#deps.putArtifact(tarOf(candidate.files)) };
  }

  /** Points the champion's branch, and HEAD, at a commit: what `git clone` of this repository checks out. Returns the branch. */
  async crown(commit: string): Promise<string> {
    const branch = championBranch(this.#campaign);
    await this.#git("update-ref", `refs/heads/${branch}`, commit);
    await this.#git("symbolic-ref", "HEAD", `refs/heads/${branch}`);
    return branch;
  }

  /** Commit of the champion's branch; null before one is crowned. */
  async championCommit(): Promise<string | null> {
    const line = await this.#git("for-each-ref", "--format=%(objectname)", `refs/heads/${championBranch(this.#campaign)}`);
    return line.trim() || null;
  }

  /** The files of a commit, byte for byte. */
  async readTree(commit: string): Promise<Map<string, Uint8Array>> {
    const name = `read-${commit.slice(0, 16)}-${randomUUID().slice(0, 8)}`;
    await using worktree = await this.openWorktree(name, commit);
    return worktree.files();
  }

  /** Writes all branches and candidates as a bundle, which `git clone FILE` reads. False: there is no commit yet. */
  async bundle(file: string): Promise<boolean> {
    if ((await this.#git("for-each-ref", "--count=1")).trim() === "") return false;
    // HEAD is among them once it points at a champion.
    await this.#git("bundle", "create", "--quiet", file, "--all");
    return true;
  }

  /** Takes in what `bundle` wrote; every branch and candidate is there then, and HEAD where it pointed. */
  async unbundle(file: string): Promise<void> {
    const refs = (await this.#git("bundle", "unbundle", file)).trim().split("\n");
    for (const line of refs) {
      const [commit = "", ref = ""] = line.split(" ");
      if (ref.startsWith("refs/")) await this.#git("update-ref", ref, commit);
    }
  }

  /** A worktree of one running experiment, at its parent: where an agent that edits files works. */
  async openWorktree(experimentId: string, commit: string): Promise<Worktree> {
    const folder = join(this.#deps.dir, `${this.#campaign}.work`, experimentId);
    const remove = async () => {
      rmSync(folder, { recursive: true, force: true });
      await this.#git("worktree", "prune");
    };
    await remove();
    await this.#git("worktree", "add", "--quiet", "--detach", folder, commit);
    return { folder, files: () => readCandidateFiles(folder), [Symbol.asyncDispose]: remove };
  }

  async #init(): Promise<void> {
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    if (!existsSync(join(this.#folder, "HEAD")))
      await this.#git("init", "--quiet", "--bare", "--initial-branch", championBranch(this.#campaign), ".");
    // Each time: a kill may have come between init and these, and nobody else has any business in them.
    writeFileSync(join(this.#folder, "config"), REPOSITORY_CONFIG);
    rmSync(join(this.#folder, "hooks"), { recursive: true, force: true });
    mkdirSync(join(this.#folder, "info"), { recursive: true });
    writeFileSync(join(this.#folder, "info", "attributes"), REPOSITORY_ATTRIBUTES);
  }

  async #git(...command: string[]): Promise<string> {
    return safeGit(this.#folder, this.#deps.path).raw(...command);
  }
}

export interface Worktree extends AsyncDisposable {
  folder: string;
  /** What the folder holds now. Throws CandidateFilesError. */
  files(): Map<string, Uint8Array>;
}

/** The commit as a stream for git fast-import: one process, no index, no work tree. */
function importStream(ref: string, { files, message, parent, at }: Candidate): Buffer {
  const parts: Buffer[] = [];
  const line = (text: string) => parts.push(Buffer.from(`${text}\n`));
  const data = (bytes: Uint8Array) => {
    line(`data ${bytes.length}`);
    parts.push(Buffer.from(bytes), Buffer.from("\n"));
  };
  line(`commit ${ref}`);
  line(`author ${AUTHOR} ${Math.floor(at / 1000)} +0000`);
  line(`committer ${AUTHOR} ${Math.floor(at / 1000)} +0000`);
  data(Buffer.from(message));
  // The null commit as a parent means none; without it the ref's old value would be taken.
  line(`from ${parent ?? "0".repeat(40)}`);
  line("deleteall");
  for (const path of sortedPaths(files)) {
    const content = files.get(path) ?? new Uint8Array();
    line(`M ${isScript(content) ? "100755" : "100644"} inline ${path}`);
    data(content);
  }
  line("done");
  return Buffer.concat(parts);
}
