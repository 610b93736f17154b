#!/usr/bin/env bash
# Makes the programs that the chart's tests need, where they are absent: helm, and a control plane without containers
# (etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok; CRDs of the Prometheus operator and KEDA), and what makes real nodes of it (kubelet, containerd, runc, network
# plugins, kube-proxy, kube-router, CoreDNS, kubectl). Go builds come from the module proxy, checked by its sum database; etcd is
# the distribution's package, unpacked and not installed. What is there is kept: a second run does nothing.
#
#   kube-tools.sh [--limit SECONDS] [helm|control-plane|nodes]…     (default: all, 900 s in all)
#
# Exit code 0: all asked for is there. 3: something is absent; why is on the last lines. Folder: VIBESERVE_KUBE_TOOLS, else the user's cache.
set -uo pipefail

KUBERNETES=1.34.4
HELM=4.3.1
KWOK=0.8.0
PROMETHEUS_OPERATOR=0.85.0
KEDA=2.18.0
CONTAINERD=2.1.5
RUNC=1.4.0
CNI=1.8.0
COREDNS=1.12.4
KUBE_ROUTER=2.1.0

tools="${VIBESERVE_KUBE_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/vibeserve/kube-tools}"
limit=900
all_of_helm=(helm)
all_of_plane=(etcd crds kube-apiserver kube-controller-manager kube-scheduler kwok)
all_of_nodes=(kubectl kubelet kube-proxy containerd containerd-shim-runc-v2 ctr runc ptp host-local loopback kube-router coredns)
wanted=()
while [ $# -gt 0 ]; do
  case "$1" in
    --limit) limit="$2"; shift 2 ;;
    helm) wanted+=("${all_of_helm[@]}"); shift ;;
    control-plane) wanted+=("${all_of_plane[@]}"); shift ;;
    nodes) wanted+=("${all_of_nodes[@]}"); shift ;;
    *) echo "kube-tools: unknown argument $1" >&2; exit 2 ;;
  esac
done
[ ${#wanted[@]} -gt 0 ] || wanted=("${all_of_helm[@]}" "${all_of_plane[@]}" "${all_of_nodes[@]}")

mkdir -p "$tools/bin" "$tools/source"
deadline=$((SECONDS + limit))
say() { echo "kube-tools: $*"; }
left() { echo $((deadline - SECONDS)); }
go_there() { command -v go >/dev/null || { say "$1: there is no go (https://go.dev/dl, 1.24 or newer)"; return 1; }; }

# A build cut off by the limit keeps what it compiled in Go's cache: the next run goes on from there.
go_build() { # name, folder of the module, package, ldflags, tags
  local log="$tools/$1.log" began=$SECONDS
  [ "$(left)" -gt 5 ] || { say "$1: no time left of $limit s"; return 1; }
  say "$1: building $3 (log: $log)"
  (cd "$2" && CGO_ENABLED="${CGO:-0}" timeout "$(left)" nice -n 15 go build -trimpath -tags "${5:-}" -ldflags "-s -w $4" -o "$tools/bin/$1.part" "$3") >"$log" 2>&1 ||
    { say "$1: failed or out of time after $((SECONDS - began)) s: $(tail -n 1 "$log" | cut -c1-200)"; return 1; }
  mv "$tools/bin/$1.part" "$tools/bin/$1"
  say "$1: built in $((SECONDS - began)) s"
}

# A module of our own that requires the program's, so that Go's sum database checks what is built.
module() { # name, package@version…
  local name="$1" folder="$tools/source/$1"
  shift
  [ -f "$folder/ready" ] && return 0
  [ "$(left)" -gt 5 ] || { say "$name: no time left of $limit s"; return 1; }
  mkdir -p "$folder"
  (
    cd "$folder" || exit 1
    rm -f go.mod go.sum
    go mod init "tools.invalid/$name" || exit 1
    if [ "$name" = kubernetes ]; then
      # Kubernetes' own go.mod takes its libraries from folders beside it; the same are published as v0.MINOR.PATCH.
      upstream=$(go mod download -json "k8s.io/kubernetes@v$KUBERNETES" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
      sed -n 's/^[[:space:]]*\(k8s.io\/[a-z-]*\) => .*/\1/p' "$upstream" | sort -u | while read -r staged; do
        go mod edit -replace "$staged=$staged@v0.${KUBERNETES#1.}"
      done
    fi
    timeout "$(left)" go get "$@" && touch ready
  ) >"$tools/$name.log" 2>&1 || { say "$name: its modules can't be had: $(tail -n 1 "$tools/$name.log" | cut -c1-200)"; return 1; }
}

make_tool() {
  local version="-X k8s.io/component-base/version.gitVersion=v$KUBERNETES -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$(echo "$KUBERNETES" | cut -d. -f2)"
  case "$1" in
    helm)
      go_there helm && module helm helm.sh/helm/v4/cmd/helm@v$HELM &&
        go_build helm "$tools/source/helm" helm.sh/helm/v4/cmd/helm "-X helm.sh/helm/v4/internal/version.version=v$HELM" ;;
    kwok)
      go_there kwok && module kwok sigs.k8s.io/kwok/cmd/kwok@v$KWOK &&
        # What it does to nodes and pods, as its authors ship it; the program has none of its own.
        (cd "$tools/source/kwok" && for stage in $(go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage/{node/fast/node-,node/heartbeat-with-lease/node-,pod/fast/pod-}*.yaml; do
          cat "$stage" && echo ---
        done) >"$tools/stages.yaml" &&
        go_build kwok "$tools/source/kwok" sigs.k8s.io/kwok/cmd/kwok "-X sigs.k8s.io/kwok/pkg/consts.Version=v$KWOK" ;;
    containerd | containerd-shim-runc-v2 | ctr)
      go_there "$1" && module containerd github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}@v$CONTAINERD &&
        go_build "$1" "$tools/source/containerd" "github.com/containerd/containerd/v2/cmd/$1" "-X github.com/containerd/containerd/v2/version.Version=v$CONTAINERD" no_btrfs,no_devmapper,no_zfs ;;
    runc)
      # Its seccomp is C's: profiles are refused without.
      pkg-config --exists libseccomp 2>/dev/null || { say "runc: there is no libseccomp to compile with (Debian: apt-get install libseccomp-dev pkg-config)"; return 1; }
      go_there runc && module runc github.com/opencontainers/runc@v$RUNC && CGO=1 go_build runc "$tools/source/runc" github.com/opencontainers/runc "-X main.version=$RUNC" seccomp ;;
    ptp | loopback | host-local)
      local kind=main
      [ "$1" != host-local ] || kind=ipam
      go_there "$1" && module cni github.com/containernetworking/plugins/plugins/{main/ptp,main/loopback,ipam/host-local}@v$CNI && go_build "$1" "$tools/source/cni" "github.com/containernetworking/plugins/plugins/$kind/$1" "" ;;
    coredns)
      go_there coredns && module coredns github.com/coredns/coredns@v$COREDNS && go_build coredns "$tools/source/coredns" github.com/coredns/coredns "" ;;
    kube-router)
      go_there kube-router && module kube-router github.com/cloudnativelabs/kube-router/v2/cmd/kube-router@v$KUBE_ROUTER &&
        go_build kube-router "$tools/source/kube-router" github.com/cloudnativelabs/kube-router/v2/cmd/kube-router "" ;;
    kube*)
      go_there "$1" && module kubernetes k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kube-proxy,kubectl}@v$KUBERNETES && go_build "$1" "$tools/source/kubernetes" "k8s.io/kubernetes/cmd/$1" "$version" ;;
    crds)
      # Their sources bring them; nothing is built.
      go_there crds || return 1
      local folder="$tools/source/crds" monitoring keda
      mkdir -p "$folder" "$tools/crds.part"
      module_dir() { go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p'; }
      (
        cd "$folder" && rm -f go.mod go.sum && go mod init tools.invalid/crds &&
          monitoring=$(module_dir "github.com/prometheus-operator/prometheus-operator@v$PROMETHEUS_OPERATOR") && keda=$(module_dir "github.com/kedacore/keda/v2@v$KEDA") &&
          cp "$monitoring"/example/prometheus-operator-crd/monitoring.coreos.com_{servicemonitors,podmonitors,prometheusrules}.yaml \
            "$keda/config/crd/bases/keda.sh_scaledobjects.yaml" "$tools/crds.part/"
      ) >"$tools/crds.log" 2>&1 || { say "crds: can't be had: $(tail -n 1 "$tools/crds.log" | cut -c1-200)"; return 1; }
      chmod -R u+w "$tools/crds.part" && mv "$tools/crds.part" "$tools/crds" ;;
    etcd)
      if command -v etcd >/dev/null; then ln -sf "$(command -v etcd)" "$tools/bin/etcd"; return 0; fi
      command -v apt-get >/dev/null || { say "etcd: not installed, and there is no apt-get (package etcd-server)"; return 1; }
      mkdir -p "$tools/source/etcd"
      (cd "$tools/source/etcd" && { timeout 120 apt-get download -q etcd-server || { timeout 120 apt-get update -q && timeout 120 apt-get download -q etcd-server; }; } &&
        dpkg -x etcd-server_*.deb .) >"$tools/etcd.log" 2>&1 && cp "$tools/source/etcd/usr/bin/etcd" "$tools/bin/etcd" || { say "etcd: the package can't be had: $(tail -n 1 "$tools/etcd.log" | cut -c1-200)"; return 1; } ;;
  esac
}

status=0
for tool in "${wanted[@]}"; do
  if [ -x "$tools/bin/$tool" ] || { [ "$tool" = crds ] && [ -d "$tools/crds" ]; }; then continue; fi
  make_tool "$tool" || status=3
done
[ $status -eq 0 ] && say "all of ${wanted[*]} are in $tools/bin"
exit $status
