import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { expect, test } from "vitest";
import { tempDir } from "../kit/temp-dir.ts";
import { RECIPES } from "./kit.ts";

/** A server on TCP that says how many of its clients are still there. */
const SERVER = `
const http = require("node:http");
let open = 0;
http.createServer((req, res) => {
  if (req.url === "/open") return res.end(String(open));
  open++;
  res.on("close", () => open--);
  res.write("first");
  if (req.url === "/short") res.end(" last");
}).listen(Number(process.argv[2]), "127.0.0.1");
`;

test("SGLang's forwarder answers once the server listens, passes answers on, tells it of clients that leave, and ends it", async () => {
  using dir = tempDir("uds");
  const [socketPath, server] = [join(dir.path, "s"), join(dir.path, "server.cjs")];
  writeFileSync(server, SERVER);
  const child = spawn("python3", [join(RECIPES, "sglang/uds.py"), socketPath, process.execPath, server, "{port}"], { stdio: "inherit" });
  const exited = once(child, "exit");
  const get = (path: string) =>
    new Promise<string>((resolve, reject) => {
      request({ socketPath, path }, (res) => {
        let text = "";
        res.setEncoding("utf8").on("data", (part: string) => (text += part));
        res.on("end", () => resolve(text)).on("error", reject);
      })
        .on("error", reject)
        .end();
    });
  const eventually = async (path: string, wanted: string) => {
    for (let i = 0; i < 500; i++) {
      if ((await get(path).catch(() => null)) === wanted) return;
      await setTimeout(20); // nothing announces it
    }
    throw new Error(`${path} never answered ${wanted}`);
  };
  await eventually("/short", "first last");
  const left = request({ socketPath, path: "/long" }).end();
  const [answer] = (await once(left, "response")) as [NodeJS.ReadableStream];
  await once(answer, "data");
  expect(await get("/open")).toBe("1");
  left.destroy();
  await eventually("/open", "0");
  child.kill("SIGTERM");
  await exited;
});
