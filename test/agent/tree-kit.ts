import { tarOf } from "../../coordinator/src/checkpoint/tar.ts";
import { gitTreeHash } from "../../gpu-agent/src/build/git-tree-hash.ts";
import { readTar } from "../../gpu-agent/src/build/tar-reader.ts";

/** A candidate for tests, whose server is one C++ file: answers GET /health, or misbehaves as `MODE` says. */
const SERVER = `
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int argc, char** argv) {
  const std::string mode = MODE;
  if (mode == "crash") { std::fprintf(stderr, "no kernel for this machine\\n"); return 3; }
  const char* path = "";
  for (int i = 1; i + 1 < argc; i++) if (!std::strcmp(argv[i], "--socket")) path = argv[i + 1];
  if (mode == "hang") for (;;) pause();
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  std::strncpy(a.sun_path, path, sizeof a.sun_path - 1);
  if (bind(s, (sockaddr*)&a, sizeof a) || listen(s, 8)) return 4;
  for (int n = 0;; n++) {
    int c = accept(s, nullptr, nullptr);
    char buffer[4096];
    if (read(c, buffer, sizeof buffer) <= 0) { close(c); continue; }
    if (mode == "dies" && n > 0) std::abort();
    const char* answer = "HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\nconnection: close\\r\\n\\r\\n{}";
    if (write(c, answer, std::strlen(answer)) < 0) return 5;
    close(c);
  }
}
`;

export const MANIFEST = {
  v: 1,
  kind: "stack",
  name: "test",
  build: ["sh", "build.sh", "${CXX}", "${OUT}"],
  serve: ["${OUT}", "--socket", "${SOCKET}", "--model", "${MODEL}", "--cpus", "${CPUS}"],
  dialect: "openai",
  features: ["stream"],
};

const BUILD = '#!/bin/sh\nset -e\n$1 -O1 -std=c++20 -o "$2" main.cpp\n';

/** Files of a candidate whose server behaves as `mode` says; `more` replaces or adds files. */
export function candidateFiles(mode: string, more: Record<string, string> = {}): Map<string, Uint8Array> {
  const files = {
    "stack.json": JSON.stringify(MANIFEST),
    "build.sh": BUILD,
    "main.cpp": SERVER.replace("MODE", JSON.stringify(mode)),
    ...more,
  };
  return new Map(Object.entries(files).map(([path, text]) => [path, Buffer.from(text)]));
}

/** The tar that the coordinator would make, and its tree hash. */
export function packed(files: Map<string, Uint8Array>): { tar: Buffer; treeDigest: string } {
  const tar = tarOf(files);
  return { tar, treeDigest: gitTreeHash(readTar(tar), "sha1") };
}
