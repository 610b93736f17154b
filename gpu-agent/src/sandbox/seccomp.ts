/**
 * A seccomp filter as classic BPF, for `bwrap --seccomp`. bubblewrap's namespaces are the wall; this takes away the kernel interfaces that have most
 * often been a way through one (nested user namespaces, mounts, bpf, io_uring, perf, keyrings) and sockets that no network namespace contains (vsock).
 */

/** Syscall numbers, from the kernel's tables; those from 424 up are the same everywhere. */
const SHARED_DENIED = [425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442];
const X64 = {
  auditArch: 0xc000003e,
  clone: 56,
  mmap: 9,
  mprotect: [10, 329],
  memfdCreate: 319,
  archPrctl: 158,
  socket: 41,
  /* ptrace syslog pivot_root chroot acct mount umount2 swapon swapoff reboot sethostname setdomainname iopl ioperm init_module delete_module
     quotactl lookup_dcookie kexec_load add_key request_key keyctl unshare perf_event_open name_to_handle_at open_by_handle_at setns
     process_vm_readv process_vm_writev kcmp finit_module kexec_file_load bpf userfaultfd */
  denied: [
    101, 103, 155, 161, 163, 165, 166, 167, 168, 169, 170, 171, 172, 173, 175, 176, 179, 212, 246, 248, 249, 250, 272, 298, 303, 304, 308,
    310, 311, 312, 313, 320, 321, 323,
  ],
};
const ARM64: typeof X64 = {
  auditArch: 0xc00000b7,
  clone: 220,
  mmap: 222,
  mprotect: [226, 288],
  memfdCreate: 279,
  archPrctl: 0,
  socket: 198,
  denied: [
    117, 116, 41, 51, 89, 40, 39, 224, 225, 142, 161, 162, 105, 106, 60, 18, 104, 217, 218, 219, 97, 241, 264, 265, 268, 270, 271, 272, 273,
    294, 280, 282,
  ],
};
/** Its flags lie behind a pointer, which BPF can't read: say "no such call", and libc falls back to clone. */
const CLONE3 = 435;
/** CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET | NEWTIME. */
const NEW_NAMESPACE = 0x7e020080;
/** AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: all bounded by the network namespace, and asked for by ordinary libraries. */
const FAMILIES = [1, 2, 10, 16];

const EPERM = 1;
const ENOSYS = 38;
const EAFNOSUPPORT = 97;
const LOAD = 0x20;
const JUMP_EQUAL = 0x15;
const JUMP_GE = 0x35;
const JUMP_SET = 0x45;
const RETURN = 0x06;
const ALLOW = 0x7fff0000;
const KILL = 0x80000000;
const errno = (n: number): number => 0x00050000 | n;
/** Offsets in struct seccomp_data: nr, arch, args[0] (low half, little-endian). */
const NR = 0;
const ARCH = 4;
const ARG0 = 16;
const [ARG2, ARG3] = [32, 40];
/** For mmap and mprotect. */
const [PROT_WRITE, PROT_EXEC, MAP_ANONYMOUS] = [2, 4, 0x20];
/** Asks for AMX's tile registers (ARCH_REQ_XCOMP_PERM). */
const REQUEST_TILES = 0x1023;
/** x32 calls use the same arch value with this bit: another table, so refuse all. */
const X32_BIT = 0x40000000;

/**
 * The program for this process's architecture, or null where we have no table (then there is no filter, only namespaces). seal: memory that is executable comes
 * from a file and was never to be written; the tile registers stay closed.
 */
export function seccompProgram(arch: string = process.arch, seal = false): Uint8Array | null {
  const table = arch === "x64" ? X64 : arch === "arm64" ? ARM64 : null;
  if (!table) return null;
  const ops: [code: number, yes: number, no: number, k: number][] = [
    [LOAD, 0, 0, ARCH],
    [JUMP_EQUAL, 1, 0, table.auditArch],
    [RETURN, 0, 0, KILL],
    [LOAD, 0, 0, NR],
    [JUMP_GE, 0, 1, X32_BIT],
    [RETURN, 0, 0, errno(ENOSYS)],
  ];
  for (const nr of [...table.denied, ...SHARED_DENIED]) ops.push([JUMP_EQUAL, 0, 1, nr], [RETURN, 0, 0, errno(EPERM)]);
  if (seal) ops.push(...sealed(table));
  ops.push([JUMP_EQUAL, 0, 1, CLONE3], [RETURN, 0, 0, errno(ENOSYS)]);
  ops.push(
    [JUMP_EQUAL, 0, 4, table.clone],
    [LOAD, 0, 0, ARG0],
    [JUMP_SET, 0, 1, NEW_NAMESPACE],
    [RETURN, 0, 0, errno(EPERM)],
    [RETURN, 0, 0, ALLOW],
  );
  ops.push([JUMP_EQUAL, 0, FAMILIES.length + 2, table.socket], [LOAD, 0, 0, ARG0]);
  FAMILIES.forEach((family, i) => ops.push([JUMP_EQUAL, FAMILIES.length - i, 0, family]));
  ops.push([RETURN, 0, 0, errno(EAFNOSUPPORT)], [RETURN, 0, 0, ALLOW]);
  const program = new DataView(new ArrayBuffer(ops.length * 8));
  ops.forEach(([code, yes, no, k], i) => {
    program.setUint16(i * 8, code, true);
    program.setUint8(i * 8 + 2, yes);
    program.setUint8(i * 8 + 3, no);
    program.setUint32(i * 8 + 4, k >>> 0, true);
  });
  return new Uint8Array(program.buffer);
}

/** Entered and left with the call's number loaded. */
function sealed(table: typeof X64): [code: number, yes: number, no: number, k: number][] {
  const anyBit = JUMP_SET;
  return [
    ...table.mprotect.flatMap((nr): [number, number, number, number][] => [
      [JUMP_EQUAL, 0, 4, nr],
      [LOAD, 0, 0, ARG2],
      [anyBit, 0, 1, PROT_EXEC],
      [RETURN, 0, 0, errno(EPERM)],
      [RETURN, 0, 0, ALLOW],
    ]),
    [JUMP_EQUAL, 0, 7, table.mmap],
    [LOAD, 0, 0, ARG2],
    [anyBit, 0, 4, PROT_EXEC],
    [anyBit, 2, 0, PROT_WRITE],
    [LOAD, 0, 0, ARG3],
    [anyBit, 0, 1, MAP_ANONYMOUS],
    [RETURN, 0, 0, errno(EPERM)],
    [RETURN, 0, 0, ALLOW],
    [JUMP_EQUAL, 0, 1, table.memfdCreate],
    [RETURN, 0, 0, errno(EPERM)],
    [JUMP_EQUAL, 0, 4, table.archPrctl],
    [LOAD, 0, 0, ARG0],
    [JUMP_EQUAL, 0, 1, REQUEST_TILES],
    [RETURN, 0, 0, errno(EPERM)],
    [RETURN, 0, 0, ALLOW],
  ];
}
