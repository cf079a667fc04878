#!/bin/sh
# jvm.sh runs app.jar of the live root as one of two instances of a unit, each on a
# port of its own. The new one is started beside the old one, and that is stopped
# when the new one is ready, however long that takes. A proxy asks both ports. It is
# the agent's -check-script, -script and -remove-script in one.
set -eu

# Where these differ, a script that sets them executes this one.
: "${UNIT:=app}"        # app@.service
: "${PORTS:=8081 8082}" # its instances
: "${JAR:=app.jar}"     # below the root
: "${READY:=curl -fs -o /dev/null http://localhost:\$port/ready}"
: "${KEYSTORE:=}" # below the root; none
: "${PASSWORD:=/etc/deploy-agent/keystore.password}"
: "${SYSTEMCTL:=systemctl}"
: "${WAIT:=120}" # seconds until it is ready

case $DEPLOY_PHASE in
check)
	[ -z "$KEYSTORE" ] || said=$(keytool -list -keystore "$NEWROOT/$KEYSTORE" -storepass:file "$PASSWORD" 2>&1) || {
		echo "error: cannot open $KEYSTORE: $said" >&2
		exit 1
	}
	exec java --dry-run -jar "$NEWROOT/$JAR"
	;;
remove)
	for port in $PORTS; do
		"$SYSTEMCTL" disable --now "$UNIT@$port"
	done
	exit
	;;
esac

# root_of PORT prints the root from which this instance runs, if it does.
root_of() {
	readlink "/proc/$("$SYSTEMCTL" show --property=MainPID --value "$UNIT@$1")/cwd" || true
}

# One that runs from NEWROOT already is left alone: on the way back that is the one
# that has never stopped.
new='' free=''
for port in $PORTS; do
	root=$(root_of "$port")
	if [ "$root" = "$NEWROOT" ]; then
		new=$port
	elif [ -z "$root" ] || [ "$root" != "$OLDROOT" ]; then
		free=$port
	fi
done
if [ -z "$new" ]; then
	new=${free:?all instances run the old root: stop one}
	"$SYSTEMCTL" disable --now "$UNIT@$new"
	"$SYSTEMCTL" enable --now "$UNIT@$new"
fi

for left in $(seq "$WAIT" -1 0); do
	! port=$new sh -c "$READY" || break
	if [ "$left" = 0 ] || [ -z "$(root_of "$new")" ]; then
		echo "error: $UNIT@$new has ended, or is not ready after $WAIT s: see journalctl -u $UNIT@$new" >&2
		exit 1
	fi
	sleep 1
done

for port in $PORTS; do
	[ "$port" = "$new" ] || "$SYSTEMCTL" disable --now "$UNIT@$port"
done
