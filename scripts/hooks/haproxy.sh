#!/bin/sh
# haproxy.sh has haproxy serve from roots that hold haproxy.cfg and all that it
# names. It is the agent's -check-script, -script and -remove-script in one.
set -eu

# Where these differ, a script that sets them executes this one.
: "${PIDFILE:=/run/haproxy.pid}"
: "${RELOAD:=systemctl reload-or-restart haproxy}"
: "${STOP:=systemctl stop haproxy}"
: "${WAIT:=30}" # seconds

case $DEPLOY_PHASE in
check) exec haproxy -c -f "$NEWROOT/haproxy.cfg" ;;
remove) exec sh -c "$STOP" ;;
esac

# workers prints all processes that serve, also those that only end what they have
# begun; none where haproxy does not run.
workers() {
	{ read -r main <"$PIDFILE" && tr ' ' '\n' <"/proc/$main/task/$main/children"; } 2>/dev/null || true
}

# listens: the main process catches USR2. One that is about to begin ignores it, and
# the next reload would be lost.
listens() {
	caught=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$(cat "$PIDFILE")/status") && [ $((0x$caught & 0x800)) != 0 ]
}

before=$(workers)
sh -c "$RELOAD"

# That haproxy was told says nothing yet: where it cannot use the new settings, as
# a port is taken for instance, the old worker goes on. A new one shows that it can.
for _ in $(seq "$((WAIT * 10))"); do
	for worker in $(workers); do
		if ! echo "$before" | grep -qxF "$worker" && listens; then
			exit
		fi
	done
	sleep 0.1
done
echo "error: haproxy has not taken over the settings of $NEWROOT within $WAIT s: see its log" >&2
exit 1
