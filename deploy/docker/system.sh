#!/bin/sh
# sh system.sh PACKAGE…: what every image has beside VibeServe itself: these packages of its distribution, the user 10001 and the folders that it may write.
# The root file system may be read-only: only these folders and /tmp are written.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install -y --no-install-recommends "$@"
apt-get clean
rm -rf /var/lib/apt/lists/* /var/log/dpkg.log /var/log/apt /var/cache/ldconfig/aux-cache /tmp/system.sh
groupadd --gid 10001 vibeserve
useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /var/lib/vibeserve --shell /usr/sbin/nologin vibeserve
for folder in /var/lib/vibeserve /var/lib/vibeserve-agent /var/cache/vibeserve /etc/vibeserve/join; do
  install -d -m 0700 -o 10001 -g 10001 "$folder"
done
# Weights are shown to candidates, which are other users where an agent is root.
chmod 0755 /var/cache/vibeserve
