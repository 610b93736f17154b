/** Kills all of a process group that a child with this pid leads. Undefined, or a group that has ended: nothing. */
export function killGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}
