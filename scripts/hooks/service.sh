#!/bin/sh
# service.sh has a systemd unit run the program of NEWROOT, which it starts
# through the link `current`. It is the agent's -check-script, -script and
# -remove-script in one.
set -eu

# Where these differ, a script that sets them executes this one.
: "${UNIT:=$DEPLOY_NAME.service}"
: "${CHECK:=:}" # a command that looks at NEWROOT and changes nothing
: "${RELOAD:=systemctl restart $UNIT}"
: "${REMOVE:=systemctl stop $UNIT}"
: "${STEADY:=2}" # seconds for which it must run on

case $DEPLOY_PHASE in
check) exec sh -c "$CHECK" ;;
remove) exec sh -c "$REMOVE" ;;
esac

# A version that ended again and again may have used up the starts that systemd
# allows. They must not be held against the one that comes back.
systemctl reset-failed "$UNIT" 2>/dev/null || true
sh -c "$RELOAD"

# A unit that does not wait for its program counts as started at once, and its
# program may end at once.
running() { systemctl is-active --quiet "$UNIT" && systemctl show -p MainPID -p NRestarts "$UNIT"; }
if before=$(running) && sleep "$STEADY" && after=$(running) && [ "$after" = "$before" ]; then
	exit
fi
echo "error: $UNIT does not run on for $STEADY s: see journalctl -u $UNIT" >&2
exit 1
