#!/usr/bin/env node
// The first thing that runs on a bare machine, as `node coordinator/bin/bootstrap.mjs <verb> …` of every npm script. It needs nothing
// but Node: what it lacks it installs, then it hands over. This file alone must parse under any Node that knows .mjs, so that an
// old one ends with a sentence and not with a syntax error; the rest is loaded after the check and may use Node 20's language.
var wanted = 20;
var major = Number(process.versions.node.split(".")[0]);

if (major < wanted) {
  console.error(
    "vibeserve: Node " +
      process.versions.node +
      " is too old: set-up needs Node " +
      wanted +
      " or newer with npm (it then brings its own Node 24).\n" +
      "  fix: install a current Node, for example `nvm install 24`, Debian 13's `apt-get install nodejs npm`, or https://nodejs.org/en/download",
  );
  process.exit(2);
}

import("./bootstrap/main.mjs").then(
  function (bootstrap) {
    return bootstrap.main(process.argv.slice(2));
  },
  function (error) {
    console.error("vibeserve: " + (error && error.stack ? error.stack : error));
    process.exit(1);
  },
);
