#!/bin/bash
# machine.sh INIT FOLDER [FROM=TO]…: a machine of its own, as process 1 of new namespaces (test/kit/machine.ts makes them). Its root is this machine's with a layer in
# memory over it, which is also at /run/upper; FROM is bound to TO. INIT: systemd, or none (a process that sleeps).
set -eu
init=$1 folder=$2
shift 2
mount --make-rprivate /
mount -t tmpfs tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
root=$folder/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$root"
mount -t proc proc "$root/proc"
for dir in run tmp; do mount -t tmpfs tmpfs "$root/$dir"; done
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
  touch "$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/run/upper"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs tmpfs "$root/dev/shm"
mount --bind "$folder/upper" "$root/run/upper"
for pair; do
  mkdir -p "$root/${pair#*=}"
  mount --bind "${pair%%=*}" "$root/${pair#*=}"
done
ip link set lo up

if [ "$init" = systemd ]; then
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  else
    mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
    mkdir "$root/sys/fs/cgroup/systemd" "$root/sys/fs/cgroup/unified"
    mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
  fi
  # No more than a test needs, and nothing that reaches what is shared with the machine below.
  mkdir -p "$root/run/systemd/system"
  for unit in systemd-binfmt systemd-sysctl systemd-modules-load systemd-udevd systemd-udev-trigger systemd-remount-fs systemd-hwdb-update systemd-random-seed; do
    ln -s /dev/null "$root/run/systemd/system/$unit.service"
  done
  printf '[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service dbus.socket\nAfter=dbus.socket\n' >"$root/run/systemd/system/test.target"
  set -- /lib/systemd/systemd --system --unit=test.target --log-target=journal-or-kmsg --show-status=no
else
  set -- sleep infinity
fi
cd "$root"
pivot_root . mnt
# shellcheck disable=SC2016
exec env -i container=vibeserve-test PATH=/usr/bin:/bin:/usr/sbin:/sbin sh -c 'umount -l /mnt && exec "$@"' sh "$@" </dev/null
