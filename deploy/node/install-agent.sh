#!/bin/sh
# Installs, upgrades or removes a VibeServe agent (or coordinator) on a node, as a service, from an offline bundle that lies beside its checksum.
# It fetches nothing and is never read from a pipe. Whatever fails, it puts back what was there. docs/install/bare-linux.md has the steps.
set -eu
umask 022

usage() {
  cat <<'TEXT'
usage: install-agent.sh --bundle FILE.tar.gz [--bundle PART.tar.gz]… [--join-file FILE] [options]
       install-agent.sh --uninstall [--keep-data] [options]
  --bundle FILE      an archive of `vibeserve bundle`, the core first; FILE.sha256 must lie beside it
  --join-file FILE   the join line; copied to /etc/vibeserve/join/line, where only root and the agent can read it
  --role ROLE        agent (default) or coordinator
  --prefix DIR       where it is unpacked (default /opt/vibeserve)
  --user NAME        who it runs as, made if missing (default vibeserve-agent, or vibeserve; on a Mac _vibeserve)
  --service KIND     systemd, launchd or none (default: what this machine has)
  --settle SECONDS   how long it must stay up to count as started (default 10)
  --keep-data        with --uninstall: keys, caches, settings and the user stay
TEXT
}

say() { printf '%s\n' "install-agent: $*"; }
fail() {
  printf '%s\n' "install-agent: $*" >&2
  exit 1
}
wrong() {
  printf '%s\n' "install-agent: $*" >&2
  exit 2
}

# --- what goes wrong later is undone in reverse; nothing is undone once `settled` is set
undo=: settled='' work=''
or_undo() {
  undo="$1
$undo"
}
finish() {
  status=$?
  trap - EXIT
  trap '' HUP INT TERM
  if [ -z "$settled" ]; then
    set +e
    [ "$undo" = : ] || say "putting back what was there" >&2
    eval "$undo"
  fi
  [ -z "$work" ] || rm -rf "$work" "$lock"
  exit "$status"
}

digest_of() {
  if command -v sha256sum >/dev/null; then sha256sum <"$1" | cut -d ' ' -f 1; else shasum -a 256 <"$1" | cut -d ' ' -f 1; fi
}

# --- users
make_user() {
  id "$user" >/dev/null 2>&1 && return
  or_undo "remove_user"
  if [ "$os" = darwin ]; then
    number=400
    while { dscl . -list /Users UniqueID && dscl . -list /Groups PrimaryGroupID; } | grep -q " $number\$"; do number=$((number + 1)); done
    dscl . -create "/Groups/$user" PrimaryGroupID "$number"
    dscl . -create "/Users/$user" UniqueID "$number"
    dscl . -create "/Users/$user" PrimaryGroupID "$number"
    dscl . -create "/Users/$user" UserShell /usr/bin/false
    dscl . -create "/Users/$user" NFSHomeDirectory "$data"
    dscl . -create "/Users/$user" IsHidden 1
  else
    useradd --system --user-group --no-create-home --home-dir "$data" --shell /usr/sbin/nologin "$user"
  fi
}
# Only one that was made for this: its home is the data folder.
remove_user() {
  [ "$(eval "printf %s ~$user")" = "$data" ] || return 0
  if [ "$os" = darwin ]; then
    dscl . -delete "/Users/$user"
    dscl . -delete "/Groups/$user"
  else
    userdel "$user"
  fi
}
as_user() {
  # By its path: busybox has a setpriv of its own, which can less.
  if [ -x /usr/bin/setpriv ]; then /usr/bin/setpriv --reuid="$user" --regid="$group" --clear-groups "$@"; else sudo -u "$user" "$@"; fi
}

# --- archives
# A copy that nobody else can change is checked and unpacked, so that what was checked is what runs.
unpack() {
  [ -f "$1" ] || wrong "--bundle $1: there is no such file"
  [ -f "$1.sha256" ] || wrong "--bundle $1: its checksum file $1.sha256 is not beside it"
  expected=$(head -n 1 "$1.sha256" | cut -d ' ' -f 1)
  case $expected in *[!0-9a-f]* | '') wrong "--bundle $1: \"$expected\" is not a sha256 in lower case" ;; esac
  cp "$1" "$work/archive.tar.gz"
  found=$(digest_of "$work/archive.tar.gz")
  [ "$found" = "$expected" ] || fail "--bundle $1: its sha256 is $found, and should be $expected: it is damaged, or another file; nothing was unpacked"
  tar -tzf "$work/archive.tar.gz" >"$work/names"
  top=$(head -n 1 "$work/names" | cut -d / -f 1)
  case $top in vibeserve-*) ;; *) fail "--bundle $1: not a bundle of VibeServe: it begins with $top" ;; esac
  if grep -v "^$top/" "$work/names" | grep -q . || grep -Eq '(^|/)\.\.(/|$)' "$work/names"; then
    fail "--bundle $1: it has files outside $top"
  fi
  mkdir -p "$work/in"
  tar -xzof "$work/archive.tar.gz" -C "$work/in"
  rm -f "$work/archive.tar.gz"
  [ "$(ls "$work/in")" = "$top" ] || fail "--bundle $1: it is of another version than the archive before it"
  digests="$digests $found"
}

check_platform() {
  case $(uname -m) in x86_64 | amd64) arch=x64 ;; aarch64 | arm64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
  is=$(sed -n 's/^  "platform": "\(.*\)",*$/\1/p' "$tree/MANIFEST.json" 2>/dev/null) || true
  [ "$is" = "$os-$arch" ] || fail "this bundle is for ${is:-no platform that it names}, and this machine is $os-$arch"
  [ -x "$tree/$program" ] || fail "this bundle has no $program: is its core archive among --bundle?"
}

# Does this version start at all? Asked before the one that runs is touched.
preflight() {
  case $role in
    agent)
      set -- VIBESERVE_AGENT_CACHE="$cache" HOME="$data" NODE_DISABLE_COMPILE_CACHE=1
      [ ! -e "$etc/join/line" ] || set -- "$@" VIBESERVE_AGENT_JOIN_FILE="$etc/join/line"
      while IFS= read -r pair; do
        case $pair in VIBESERVE_AGENT_[A-Z]*=*) set -- "$@" "$pair" ;; esac
      done <"$env_or_none"
      set -- "$@" "$tree/$program" --data "$data" --describe
      ;;
    coordinator) set -- HOME="$data" NODE_DISABLE_COMPILE_CACHE=1 "$tree/$program" --version ;;
  esac
  (cd "$data" && as_user env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin "$@") >"$work/said" 2>&1 && return
  tail -n 15 "$work/said" >&2
  fail "this version does not start on this machine; what it said stands above"
}

# A folder that is undone if it was made here.
folder() {
  [ -d "$1" ] || {
    or_undo "rm -rf '$1'"
    mkdir -p "$1"
  }
  chown "$2" "$1"
  chmod "$3" "$1"
}
# A file's own copy comes back, or it goes.
save() {
  if [ -e "$1" ]; then
    cp -p "$1" "$work/$2"
    or_undo "cp -p '$work/$2' '$1'"
  else
    or_undo "rm -f '$1'"
  fi
}

install_it() {
  [ -n "$bundles" ] || wrong "--bundle is missing"
  [ -z "$join_file" ] || [ -f "$join_file" ] || wrong "--join-file $join_file: there is no such file"
  if [ -e "$prefix" ] && [ ! -e "$prefix/INSTALLED" ]; then fail "$prefix is there and was not made by this script: choose another --prefix"; fi
  old_role=$(record role)
  [ -z "$old_role" ] || [ "$old_role" = "$role" ] || fail "$prefix has a $old_role: give the $role another --prefix"
  if [ -n "$(record name)" ]; then
    [ "$(record user) $(record service)" = "$user $service" ] ||
      fail "$prefix was installed with --user $(record user) --service $(record service): say the same, or uninstall first"
  fi

  digests=''
  while IFS= read -r archive; do
    [ -z "$archive" ] || unpack "$archive"
  done <<LIST
$bundles
LIST
  tree=$work/in/$top
  check_platform
  # shellcheck source=deploy/node/service.sh
  . "$tree/deploy/node/service.sh"
  chown -R 0:0 "$tree"
  chmod 755 "$work" "$work/in" "$tree"

  make_user
  group=$(id -gn "$user")
  folder "$data" "$user:$group" 0700
  folder "$cache" "$user:$group" 0755
  folder "$etc" 0:0 0755
  folder "$etc/join" "0:$group" 0750
  new_line=''
  # The line alone, or in the command that `vibeserve agents token` prints.
  [ -z "$join_file" ] || (umask 077 && sed "s/.*--join '\([^']*\)'.*/\1/" "$join_file" >"$work/given")
  if [ -n "$join_file" ] && ! cmp -s "$work/given" "$etc/join/line"; then
    new_line=yes
    save "$etc/join/line" line
    (umask 077 && cp "$work/given" "$etc/join/line.new")
    chown "0:$group" "$etc/join/line.new"
    chmod 0640 "$etc/join/line.new"
    mv "$etc/join/line.new" "$etc/join/line"
  fi
  for file in "$tree/parts/weights"/*; do
    if [ ! -e "$file" ] || [ -e "$cache/weights/${file##*/}" ]; then continue; fi
    # As the user: this folder is its own, and where a link of its making leads is nothing for root.
    as_user mkdir -p "$cache/weights"
    or_undo "as_user rm -rf '$cache/weights/${file##*/}' '$cache/weights/.draft'"
    as_user cp -R "$file" "$cache/weights/.draft"
    as_user mv "$cache/weights/.draft" "$cache/weights/${file##*/}"
  done

  if [ "$(record digests)" = "${digests# }" ] && [ -z "$new_line" ] && { [ "$service" = none ] || service_runs; }; then
    settled=yes
    say "unchanged: $name is as it should be"
    return
  fi
  preflight
  printf '%s\n' "name=$name" "role=$role" "user=$user" "service=$service" "digests=${digests# }" >"$tree/INSTALLED"

  # From here on the one that runs is touched.
  what=installed
  if [ "$service" != none ]; then
    mkdir -p "${unit%/*}"
    [ ! -d "$unit.d" ] || cp -Rp "$unit.d" "$work/before.d"
    if [ -e "$unit" ]; then
      cp -p "$unit" "$work/before"
      # A new start of the old version has to find its old unit, with its old drop-ins.
      or_undo "service_start"
      or_undo "cp -p '$work/before' '$unit'; rm -rf '$unit.d'; [ ! -d '$work/before.d' ] || cp -Rp '$work/before.d' '$unit.d'"
    else
      or_undo "service_forget"
    fi
  fi
  if [ -e "$prefix" ]; then
    what=upgraded
    or_undo "[ ! -e '$prefix.old' ] || { rm -rf '$prefix'; mv '$prefix.old' '$prefix'; }"
    or_undo "service_stop"
    service_stop
    mv "$prefix" "$prefix.old"
  else
    mkdir -p "${prefix%/*}"
    or_undo "rm -rf '$prefix'"
    or_undo "service_stop"
  fi
  mv "$tree" "$prefix"
  [ "$service" = none ] || write_unit
  start_it
  settled=yes
  rm -rf "$prefix.old"
  say "$what: $prefix, $name, user $user"
  next_steps
}

start_it() {
  waits_for_line=''
  if [ "$role" = agent ] && [ ! -e "$etc/join/line" ] && [ ! -e "$data/membership.json" ] && ! grep -q '^VIBESERVE_AGENT_SERVERS=' "$env_or_none"; then
    waits_for_line=yes
  fi
  [ "$service" != none ] || return 0
  service_enable
  [ -z "$waits_for_line" ] || return 0
  service_start || {
    service_says >&2
    fail "$name does not start; what it said stands above"
  }
  i=0
  while [ "$i" -lt "$settle" ]; do
    sleep 1
    i=$((i + 1))
    service_runs || {
      service_says >&2
      fail "$name did not stay up for $settle s; what it said stands above"
    }
  done
}

next_steps() {
  case $service in
    none) say "next: run as $user: VIBESERVE_AGENT_CACHE=$cache $prefix/$program --data $data --join-file $etc/join/line" ;;
    *)
      if [ -n "$waits_for_line" ]; then
        say "next: make a line at the coordinator (vibeserve agents token), bring it here, and run this again with --join-file FILE"
      elif [ "$role" = agent ]; then
        say "next, at the coordinator: vibeserve agents (and, if it waits: vibeserve agents approve ID)"
      else
        say "next: $prefix/bin/vibeserve agents token --data $data"
      fi
      ;;
  esac
}

uninstall_it() {
  [ ! -e "$prefix" ] || [ -e "$prefix/INSTALLED" ] || fail "$prefix was not made by this script: nothing was removed"
  if [ -e "$prefix" ]; then
    [ "$(record role)" = "$role" ] || fail "$prefix has a $(record role): say --role $(record role)"
    user=$(record user)
    service=$(record service)
    place_unit
    # shellcheck source=deploy/node/service.sh
    . "$prefix/deploy/node/service.sh"
  elif [ ! -e "$data" ] && [ ! -e "$cache" ] || [ -n "$keep_data" ]; then
    settled=yes
    say "unchanged: there is nothing at $prefix"
    return
  fi
  settled=yes
  if [ -e "$prefix" ] && [ "$service" != none ]; then
    service_stop
    service_forget
  fi
  if [ -z "$keep_data" ]; then
    rm -rf "$data" "$cache"
    if [ "$role" = agent ]; then rm -rf "$etc/join" "$etc/agent.env"; else rm -f "$etc/coordinator.env"; fi
    rmdir "$etc" 2>/dev/null || true
    remove_user
  fi
  # Last: a run that was cut short is run again.
  rm -rf "$prefix"
  say "removed: $prefix, $name${keep_data:+ (kept: $data, $cache, $etc, user $user)}"
  [ "$role" != agent ] || say "next, at the coordinator: vibeserve agents revoke ID"
}

record() { sed -n "s/^$1=//p" "$prefix/INSTALLED" 2>/dev/null || true; }
place_unit() { case $service in launchd) unit=/Library/LaunchDaemons/$label.plist ;; *) unit=/etc/systemd/system/$name.service ;; esac }

main() {
  case ${0##*/} in *install-agent*) [ -f "$0" ] ;; *) false ;; esac ||
    wrong "run it from a file that you have looked at (sh install-agent.sh …), not from a pipe"
  bundles='' join_file='' role=agent prefix=/opt/vibeserve user='' service='' settle=10 uninstall='' keep_data=''
  while [ $# -gt 0 ]; do
    case $1 in --bundle | --join-file | --role | --prefix | --user | --service | --settle) [ $# -ge 2 ] || wrong "$1 wants a value" ;; esac
    option=$1
    shift
    case $option in
      --uninstall) uninstall=yes && continue ;;
      --keep-data) keep_data=yes && continue ;;
      --bundle) bundles="$bundles
$1" ;;
      --join-file) join_file=$1 ;;
      --role) role=$1 ;;
      --prefix) prefix=${1%/} ;;
      --user) user=$1 ;;
      --service) service=$1 ;;
      --settle) settle=$1 ;;
      -h | --help) usage && exit 0 ;;
      *) usage >&2 && wrong "$option is no option of this script" ;;
    esac
    shift
  done
  os=$(uname -s | tr '[:upper:]' '[:lower:]')
  case $role in
    agent) name=vibeserve-agent state=vibeserve-agent program=bin/gpu-agent ;;
    coordinator) name=vibeserve-coordinator state=vibeserve program=bin/vibeserve ;;
    *) wrong "--role $role: there are agent and coordinator" ;;
  esac
  if [ "$os" = darwin ]; then
    data=/usr/local/var/$state cache=/usr/local/var/cache/$state user=${user:-_vibeserve}
  else
    data=/var/lib/$state cache=/var/cache/$state user=${user:-$state}
  fi
  etc=/etc/vibeserve label=ai.vibeserve.agent
  if [ -z "$service" ]; then
    if [ -d /run/systemd/system ]; then service=systemd; elif [ "$os" = darwin ]; then service=launchd; else service=none; fi
  fi
  case $service in
    systemd | none) ;;
    launchd) [ "$role" = agent ] || wrong "--service launchd: only the agent has a plist" ;;
    *) wrong "--service $service: there are systemd, launchd and none" ;;
  esac
  # They stand in unit files, sed scripts and commands that undo.
  case $prefix in /*/*) ;; *) wrong "--prefix $prefix: an absolute path of two folders or more, such as /opt/vibeserve" ;; esac
  case $prefix in *[!A-Za-z0-9._/-]* | */../* | */..) wrong "--prefix $prefix: letters, digits, '.', '_' and '-' only" ;; esac
  case $user in *[!a-z0-9_-]* | -* | '' | root) wrong "--user $user: a user of its own, in lower case" ;; esac
  case $settle in *[!0-9]* | '') wrong "--settle $settle: not a number of seconds" ;; esac
  [ "$(id -u)" -eq 0 ] || wrong "only root can install it: what it installs belongs to root, and its own user can't change it"
  if [ "$service" = systemd ] && [ ! -d /run/systemd/system ]; then wrong "--service systemd: this machine was not started by systemd"; fi
  place_unit

  lock=$prefix.lock
  if ! mkdir -p "${prefix%/*}" || ! (set -C && echo $$ >"$lock") 2>/dev/null; then
    holder=$(cat "$lock" 2>/dev/null || true)
    if [ -n "$holder" ] && kill -0 "$holder" 2>/dev/null; then fail "another installation is under way (pid $holder)"; fi
    echo $$ >"$lock"
  fi
  trap finish EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  # Killed outright in the middle of an upgrade: the version before it is the one that was known to start.
  if [ -e "$prefix.old" ]; then
    say "an upgrade was cut short: the version before it is put back"
    rm -rf "$prefix"
    mv "$prefix.old" "$prefix"
  fi
  rm -rf "$prefix.new"
  work=$prefix.new
  mkdir -m 0700 "$work"
  env_or_none=$etc/$role.env
  [ -e "$env_or_none" ] || env_or_none=/dev/null
  if [ -n "$uninstall" ]; then uninstall_it; else install_it; fi
}

main "$@"
