#!/bin/sh
# arm64.sh COMMAND…: runs it as root of namespaces (users, mounts, network: a loopback alone) in which the kernel hands arm64 programs to qemu-aarch64, and whose
# /lib has the C and C++ library of Debian's cross packages. Ends with 75 and says why where this can't be had: kernels before 6.7 have one binfmt_misc for all.
set -u
cross=/usr/aarch64-linux-gnu/lib
lacks() {
  echo "$*"
  exit 75
}
qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static) || lacks "there is no qemu-aarch64 (Debian: qemu-user)"
[ -e "$cross/libstdc++.so.6" ] || lacks "there is no arm64 C++ library (Debian: libstdc++6-arm64-cross)"
if [ "${1:-}" != --inside ]; then
  unshare -Urmn true 2>/dev/null || lacks "no namespaces can be made"
  exec unshare -Urmn sh "$0" --inside "$@"
fi
shift
{
  lib=$(readlink -f /lib)
  mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work &&
    mount -t overlay overlay -o "lowerdir=$lib,upperdir=/mnt/upper,workdir=/mnt/work" "$lib" &&
    mkdir -p "$lib/aarch64-linux-gnu" &&
    ln -sf "$cross"/*.so* "$lib/aarch64-linux-gnu/" &&
    ln -sf "$cross/ld-linux-aarch64.so.1" "$lib/" &&
    mount -t binfmt_misc none /proc/sys/fs/binfmt_misc &&
    # An ELF file of 64 bits for machine 183, which is aarch64.
    printf '%s' ':arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:'"$qemu:" \
      >/proc/sys/fs/binfmt_misc/register &&
    ip link set lo up
} 2>&1 || lacks "a namespace takes no binfmt_misc or overlay of its own"
exec "$@"
