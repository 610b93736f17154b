#!/bin/sh
# run-agent.sh COMMAND…: runs the agent for launchd, hands SIGTERM on and waits for the drain, and ends with 0 where the agent was refused for good (77) or is
# configured wrongly (2), so that KeepAlive's SuccessfulExit does not start it again.
"$@" &
agent=$!
trap 'kill -TERM "$agent" 2>/dev/null' TERM INT HUP
status=128
# A trapped signal ends a wait with a code over 128 while the agent still lives.
while [ "$status" -ge 128 ]; do
  wait "$agent"
  status=$?
  kill -0 "$agent" 2>/dev/null || break
done
case $status in
  2 | 77)
    echo "run-agent: the agent ended with $status: starting it again changes nothing; its log says why" >&2
    exit 0
    ;;
esac
exit "$status"
