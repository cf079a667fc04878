#!/bin/sh
# nginx.sh has nginx serve from roots that hold nginx.conf and all that it names, or
# with files that the agent publishes to fixed paths. It is the agent's
# -check-script, -script and -remove-script in one.
set -eu

# Where these differ, a script that sets them executes this one.
: "${PIDFILE:=/run/nginx.pid}"
: "${RELOAD:=systemctl reload-or-restart nginx}"
: "${STOP:=systemctl stop nginx}"
: "${WAIT:=30}" # seconds
: "${CONF:=}"   # where files are published: nginx.conf of the host

case $DEPLOY_PHASE in
check)
	[ -z "$CONF" ] || exec nginx -q -t -c "$DEPLOY_STAGED$CONF"
	exec nginx -q -t -p "$NEWROOT/" -c nginx.conf
	;;
remove) exec sh -c "$STOP" ;;
esac

# workers prints the processes that accept connections. Those that only end what
# they have begun are not among them.
workers() {
	{ read -r main <"$PIDFILE" && children=$(cat "/proc/$main/task/$main/children"); } 2>/dev/null || return 0
	for child in $children; do
		grep -q 'shutting down' "/proc/$child/cmdline" 2>/dev/null || echo "$child"
	done
}

before=$(workers)
sh -c "$RELOAD"

# That nginx was asked says nothing yet: where it cannot use the new settings, as
# a port is taken for instance, only its log tells, and the old workers go on.
for _ in $(seq "$((WAIT * 10))"); do
	now=$(workers)
	if [ -n "$now" ] && ! echo "$now" | grep -qxF "$before"; then
		exit
	fi
	sleep 0.1
done
echo "error: nginx has not taken over the settings of $NEWROOT within $WAIT s: see its error log" >&2
exit 1
