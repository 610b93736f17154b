#!/bin/sh
# Carries the images of images.txt, which lies beside this script, to a registry that has no way out. Needs skopeo (which keeps digests and all platforms).
#   sh mirror-images.sh save DIR           where a network is: fetches them into DIR, an OCI layout
#   sh mirror-images.sh push DIR REGISTRY  behind the gap: pushes them from DIR to REGISTRY, such as registry.internal.example/mirror
#   sh mirror-images.sh copy REGISTRY      where one machine reaches both; uses crane where there is no skopeo
# IMAGES: another list. PLAIN_HTTP=1: registries speak HTTP, as on loopback. Digests stay what they are: they are compared after a push.
set -eu
list=${IMAGES:-$(dirname "$(readlink -f "$0")")/images.txt}
fail() { echo "mirror-images.sh: $*" >&2; exit 1; }
usage() { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
has() { command -v "$1" >/dev/null 2>&1; }
verify=true
[ "${PLAIN_HTTP:-}" != 1 ] || verify=false

[ $# -ge 2 ] || usage
verb=$1
case $verb in
  save) layout=$2 registry='' ;;
  push) [ $# -eq 3 ] || usage; layout=$2 registry=$3 ;;
  copy) layout='' registry=$2 ;;
  *) usage ;;
esac
has skopeo || { [ "$verb" = copy ] && has crane; } || fail "there is no skopeo (Debian: apt-get install skopeo)"
[ -r "$list" ] || fail "there is no $list"

count=0
while read -r image; do
  case $image in '' | '#'*) continue ;; esac
  digest=${image#*@} tagged=${image%@*}
  [ "$digest" != "$image" ] || fail "$image names no digest"
  tag=${tagged##*:} name=${tagged%:*}
  # Without its registry: what stands before the first slash, if it looks like a host.
  path=$name
  case ${name%%/*} in *.* | *:* | localhost) path=${name#*/} ;; esac
  # Tags of a layout are names of their own.
  kept="oci:$layout:$(echo "$path" | tr / _)-$tag"
  source="docker://$name@$digest"
  target="docker://$registry/$path:$tag"
  echo "$image"
  case $verb in
    save) skopeo copy --quiet --all --preserve-digests --src-tls-verify=$verify "$source" "$kept" </dev/null ;;
    push) skopeo copy --quiet --all --preserve-digests --dest-tls-verify=$verify "$kept" "$target" </dev/null ;;
    copy)
      if has skopeo; then
        skopeo copy --quiet --all --preserve-digests --src-tls-verify=$verify --dest-tls-verify=$verify "$source" "$target" </dev/null
      else
        crane copy "$name@$digest" "$registry/$path:$tag" </dev/null
      fi
      ;;
  esac
  if [ "$verb" != save ] && has skopeo; then
    found=$(skopeo inspect --raw --tls-verify=$verify "$target" </dev/null | sha256sum | cut -d' ' -f1)
    [ "sha256:$found" = "$digest" ] || fail "$target has sha256:$found, not $digest"
  fi
  count=$((count + 1))
done <"$list"
echo "$count images"
