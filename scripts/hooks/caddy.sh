#!/bin/sh
# caddy.sh has Caddy serve from roots that hold a Caddyfile and all that it names,
# as {$ROOT}/... It is the agent's -check-script, -script and -remove-script in one.
set -eu

# Where these differ, a script that sets them executes this one.
: "${RELOAD:=systemctl reload-or-restart caddy}"
: "${RESTART:=systemctl restart caddy}"
: "${STOP:=systemctl stop caddy}"

case $DEPLOY_PHASE in
check) ROOT=$NEWROOT exec caddy validate --adapter caddyfile --config "$NEWROOT/Caddyfile" ;;
remove) exec sh -c "$STOP" ;;
esac

# Settings that Caddy refused when it had begun to use them, as a port is taken for
# instance, go on serving beside those that it has, whatever it loads afterwards
# (2.6.2). So the way back is a new process.
if [ "$DEPLOY_ACTION" = rollback ]; then
	exec sh -c "$RESTART"
fi

# This has to be `caddy reload --force`. Without it Caddy finds the Caddyfile to be
# what it was, with the certificates that it has read already, and succeeds.
exec sh -c "$RELOAD"
