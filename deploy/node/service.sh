# shellcheck shell=sh
# What install-agent.sh does with systemd and launchd, read from the bundle that it has checked. It sets $service, $role, $name, $label, $unit (the
# unit's file), $prefix, $user, $group, $data, $work.
# shellcheck disable=SC2154

service_stop() {
  case $service in
    systemd) systemctl stop "$name.service" 2>/dev/null || true ;;
    launchd) launchctl bootout "system/$label" 2>/dev/null || true ;;
  esac
}
service_start() {
  case $service in
    systemd)
      systemctl daemon-reload
      systemctl reset-failed "$name.service" 2>/dev/null || true
      systemctl start "$name.service"
      ;;
    launchd) launchctl bootstrap system "$unit" ;;
  esac
}
service_enable() {
  case $service in
    systemd)
      systemctl daemon-reload
      systemctl enable --quiet "$name.service"
      ;;
  esac
}
service_runs() {
  case $service in
    systemd) [ "$(systemctl show -P ActiveState "$name.service")" = active ] && [ "$(systemctl show -P NRestarts "$name.service")" = 0 ] ;;
    launchd) launchctl print "system/$label" 2>/dev/null | grep -q 'state = running' ;;
  esac
}
service_says() {
  case $service in
    systemd) journalctl --no-pager -o cat -n 15 -u "$name.service" 2>/dev/null || systemctl status --no-pager "$name.service" || true ;;
    launchd) tail -n 15 "$data/agent.log" 2>/dev/null || true ;;
  esac
}
service_forget() {
  case $service in
    systemd)
      systemctl disable --quiet "$name.service" 2>/dev/null || true
      rm -rf "$unit" "$unit.d"
      systemctl daemon-reload
      systemctl reset-failed "$name.service" 2>/dev/null || true
      ;;
    launchd) rm -f "$unit" ;;
  esac
}

# Unit and drop-ins, as the bundle has them, for this prefix and user.
write_unit() {
  case $service in
    systemd)
      sed -e "s|/opt/vibeserve/|$prefix/|g" -e "s|^User=.*|User=$user|" -e "s|^Group=.*|Group=$group|" \
        "$prefix/deploy/systemd/$name.service" >"$work/unit"
      mkdir -p "$work/unit.d"
      if [ "$role" = agent ]; then
        [ ! -e /dev/nvidiactl ] || cp "$prefix/deploy/systemd/drop-ins/nvidia.conf" "$work/unit.d/nvidia.conf"
        if [ -e /dev/kfd ]; then
          groups=''
          for g in render video; do ! getent group "$g" >/dev/null || groups="$groups $g"; done
          sed -e "s|^SupplementaryGroups=.*|SupplementaryGroups=$groups|" "$prefix/deploy/systemd/drop-ins/amd.conf" >"$work/unit.d/amd.conf"
        fi
      fi
      cp "$work/unit" "$unit.new"
      mv "$unit.new" "$unit"
      # Drop-ins of the administrator stay.
      for file in "$work/unit.d"/*.conf; do
        [ -e "$file" ] || continue
        mkdir -p "$unit.d"
        cp "$file" "$unit.d/"
      done
      ;;
    launchd) sed -e "s|/opt/vibeserve/|$prefix/|g" -e "s|_vibeserve|$user|g" -e "s|/usr/local/var/vibeserve-agent|$data|g" \
      "$prefix/deploy/launchd/$label.plist" >"$unit" ;;
  esac
}
