#!/bin/bash
# real-nodes.sh site | node FOLDER NAME ADDRESS GATEWAY [SUBNET=ADDRESS]…: process 1 of what test/kit/real-nodes.ts makes.
# site: of the processes of all nodes, in a network that joins them. node: of one node's mounts and network.
set -eu
if [ "$1" = site ]; then
  # A layer in memory, for what nodes' mounts need to be there.
  mount -t tmpfs tmpfs /mnt
  for place in /var/lib /var/log; do
    mkdir -p "/mnt$place/upper" "/mnt$place/work"
    mount -t overlay overlay -o "lowerdir=$place,upperdir=/mnt$place/upper,workdir=/mnt$place/work" "$place"
  done
  mkdir -p /var/lib/kubelet /var/log/pods /var/log/containers
  ip link set lo up
  ip link add bridge0 type bridge
  ip link set bridge0 up
else
  folder=$2 address=$4 gateway=$5
  shift 5
  # The kubelet's folders are the usual ones, each node's its own.
  for place in /var/lib/kubelet /var/log/pods /var/log/containers; do
    mkdir -p "$folder$place"
    mount --bind "$folder$place" "$place"
  done
  mount -t tmpfs tmpfs /run
  until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
  ip link set lo up
  ip addr add "$address/24" dev eth0
  ip link set eth0 up
  ip route add default via "$gateway"
  for route; do ip route add "${route%=*}" via "${route#*=}"; done
  echo 1 >/proc/sys/net/ipv4/ip_forward
fi
echo ready
# A shell waits for orphans too, which is what a first process is for.
while :; do
  sleep 3600 &
  wait $! || :
done
