import { createHash } from "node:crypto";
import { scriptedHttp } from "./scripted-http.ts";

const sha = (algorithm: "sha1" | "sha256", bytes: Buffer): string => createHash(algorithm).update(bytes).digest("hex");

export interface FakeHub extends AsyncDisposable {
  readonly url: string;
  /** Paths of files that were really sent, in order. */
  readonly sent: string[];
}

/**
 * One model repository as Hugging Face's hub serves it over HTTP: its list of files, and the files. Those that end in .safetensors or .gguf are stored with LFS, so their
 * sha256 is listed. With `token` it is gated. `broken` is sent with other bytes than are listed, once.
 */
export async function fakeHub(
  repository: string,
  revision: string,
  files: Readonly<Record<string, Buffer>>,
  { token, broken }: { token?: string; broken?: string } = {},
): Promise<FakeHub> {
  const sent: string[] = [];
  let spoil = broken;
  const siblings = Object.entries(files).map(([rfilename, bytes]) => ({
    ...{ rfilename, size: bytes.length, blobId: sha("sha1", bytes) },
    ...(/\.(safetensors|gguf)$/.test(rfilename) ? { lfs: { sha256: sha("sha256", bytes), size: bytes.length, pointerSize: 134 } } : {}),
  }));
  const { url, close } = await scriptedHttp(({ method, path: whole, headers }, response) => {
    const path = URL.parse(whole, "http://hub")?.pathname ?? "";
    if (token !== undefined && headers.authorization !== `Bearer ${token}`) {
      response.writeHead(401, { "x-error-code": "GatedRepo", "x-error-message": `Access to model ${repository} is restricted.` }).end();
      return;
    }
    if (path === `/api/models/${repository}/revision/${revision}`) {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ _id: "1", id: repository, modelId: repository, sha: revision, private: false, tags: [], siblings }));
      return;
    }
    const prefix = `/${repository}/resolve/${revision}/`;
    const name = path.startsWith(prefix) ? decodeURIComponent(path.slice(prefix.length)) : "";
    const bytes = files[name];
    if (bytes === undefined) {
      response.writeHead(404, { "x-error-code": "EntryNotFound" }).end();
      return;
    }
    response.writeHead(200, { "content-length": bytes.length, "x-repo-commit": revision, etag: `"${sha("sha1", bytes)}"` });
    if (method === "HEAD") {
      response.end();
      return;
    }
    sent.push(name);
    response.end(spoil === name ? Buffer.alloc(bytes.length) : bytes);
    if (spoil === name) spoil = undefined;
  });
  return { url, sent, [Symbol.asyncDispose]: close };
}
