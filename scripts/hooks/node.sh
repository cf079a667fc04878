#!/bin/sh
# node.sh has a unit of systemd run server.js of the live root with Node.js. It is
# the agent's -check-script, -script and -remove-script in one.
set -eu

# Where these differ, a script that sets them executes this one.
: "${UNIT:=web-node}"
: "${MAIN:=server.js}" # below the root
: "${RELOAD:=systemctl restart $UNIT.service}"
: "${ACTIVE:=systemctl is-active --quiet $UNIT.service}"
: "${STOP:=systemctl stop $UNIT.service}"
: "${WAIT:=2}" # seconds

case $DEPLOY_PHASE in
check) exec node --check "$NEWROOT/$MAIN" ;;
remove) exec sh -c "$STOP" ;;
esac

sh -c "$RELOAD"

# The unit counts as started before the program has done anything: a module that
# is missing shows a moment later.
sleep "$WAIT"
sh -c "$ACTIVE" || {
	echo "error: $MAIN has ended within $WAIT s of its start: see journalctl -u $UNIT" >&2
	exit 1
}
