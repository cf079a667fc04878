#!/bin/sh
# apache.sh has apache2 serve from roots that hold apache2.conf and all that it
# names. It is the agent's -check-script, -script and -remove-script in one.
set -eu

# Where these differ, a script that sets them executes this one.
: "${PIDFILE:=/run/apache2/apache2.pid}"
: "${RELOAD:=systemctl reload-or-restart apache2}"
: "${STOP:=systemctl stop apache2}"
: "${WAIT:=30}" # seconds

# check_keys: each certs/NAME.key belongs to the first certificate in
# certs/NAME.pem. apache2 -t does not look at that, and apache2 would end.
check_keys() {
	for key in "$NEWROOT"/certs/*.key; do
		[ -e "$key" ] || continue
		if [ "$(openssl pkey -in "$key" -pubout)" != "$(openssl x509 -in "${key%.key}.pem" -noout -pubkey)" ]; then
			echo "error: $key does not belong to the certificate in ${key%.key}.pem" >&2
			return 1
		fi
	done
}

case $DEPLOY_PHASE in
check)
	check_keys
	exec apache2 -t -d "$NEWROOT" -f apache2.conf
	;;
remove) exec sh -c "$STOP" ;;
esac

# workers prints the processes that serve; none where apache2 does not run.
workers() {
	{ read -r main <"$PIDFILE" && tr ' ' '\n' <"/proc/$main/task/$main/children"; } 2>/dev/null || true
}

before=$(workers)
sh -c "$RELOAD"

# apache2 reads the settings after it was told. Where it cannot use them, as a
# port is taken for instance, it ends.
for _ in $(seq "$((WAIT * 10))"); do
	for worker in $(workers); do
		echo "$before" | grep -qxF "$worker" || exit 0
	done
	sleep 0.1
done
echo "error: apache2 has not taken over the settings of $NEWROOT within $WAIT s: see its error log" >&2
exit 1
