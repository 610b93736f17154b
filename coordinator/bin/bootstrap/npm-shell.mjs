/** How often it is looked whether the shell is still there. */
const lookMs = 500;

/**
 * npm runs scripts and binaries by a shell and passes a SIGTERM on to that one, which ends without a word to what it runs: that would live on unseen. Under npm
 * the end of the shell therefore is a SIGTERM. Elsewhere (a service, nohup) the parent may go.
 */
export function endWithNpmsShell() {
  if (process.env.npm_command === undefined) return;
  const shell = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === shell) return;
    clearInterval(timer);
    process.kill(process.pid, "SIGTERM");
  }, lookMs);
  timer.unref();
}
