/** How often it is looked whether the shell is still there. */
const lookMs = 500;

/** npm's script, where it is one of ours by itself, and is not to go on when its shell has ended. */
const ours = /\b(?:vibeserve|bootstrap\.mjs)\b/;
const background = /(?<![&>])&(?![&>])|\b(?:nohup|setsid|disown|daemonize|screen|tmux)\b/;

/**
 * npm runs scripts and binaries by a shell and passes a SIGTERM on to that one, which ends without a word to what it runs: that would live on unseen. Under npm
 * the end of the shell therefore is told, once. Elsewhere the parent may go: a service, nohup, a shell that npm's settings came to through others, a script that
 * puts something into the background.
 */
export function whenNpmsShellEnds(ended) {
  const { npm_command: command, npm_lifecycle_script: script = "" } = process.env;
  if (command === undefined || !ours.test(script) || background.test(script)) return;
  const shell = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid === shell) return;
    clearInterval(timer);
    ended();
  }, lookMs);
  timer.unref();
}
