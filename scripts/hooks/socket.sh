#!/bin/sh
# socket.sh starts the program of NEWROOT beside the one that serves, both with
# the socket that systemd holds, and ends the old one when the new one is ready.
# It is the agent's -check-script, -script and -remove-script in one.
set -eu

# Where these differ, a script that sets them executes this one.
: "${UNIT:=$DEPLOY_NAME}" # of UNIT.socket and UNIT@.service
: "${CHECK:=:}"           # a command that looks at NEWROOT and changes nothing

case $DEPLOY_PHASE in
check) exec sh -c "$CHECK" ;;
remove) exec systemctl stop "$UNIT.socket" "$UNIT@*.service" ;;
esac

# others prints the instances that run, or try to, but for the new one.
others() {
	systemctl list-units --plain --no-legend --full --state=active,activating,reloading,deactivating "$UNIT@*.service" |
		while read -r unit _; do [ "$unit" = "$new" ] || printf '%s\n' "$unit"; done
}

# The name of an instance is its root's, as systemd escapes it.
new=$(systemd-escape --template="$UNIT@.service" "roots/$(basename "$NEWROOT")")
systemctl reset-failed "$UNIT@*.service" 2>/dev/null || true
# Without one that works nothing else is touched: the old one serves all along.
if ! systemctl start "$UNIT.socket" "$new"; then
	systemctl stop "$new"
	exit 1
fi
# What each of them has begun it may end.
others | while read -r unit; do
	systemctl stop -- "$unit" </dev/null
done
