#!/bin/sh
# dovecot.sh has Dovecot serve from roots that hold dovecot/dovecot.conf, and key,
# certificate and chain in one file. It is the agent's -check-script, -script and
# -remove-script in one.
set -eu

# Where these differ, a script that sets them executes this one.
: "${PEM:=certs/mail.pem}" # below the root
: "${RELOAD:=systemctl reload-or-restart dovecot}"
: "${STOP:=systemctl stop dovecot}"

case $DEPLOY_PHASE in
check)
	doveconf -n -c "$NEWROOT/dovecot/dovecot.conf" >/dev/null
	# doveconf does not look at them, and a login process that cannot use them ends.
	openssl x509 -in "$NEWROOT/$PEM" -noout -checkend 0 >/dev/null || {
		echo "error: $PEM holds no certificate that is still valid" >&2
		exit 1
	}
	public=$(openssl pkey -in "$NEWROOT/$PEM" -pubout)
	[ "$(openssl x509 -in "$NEWROOT/$PEM" -noout -pubkey)" = "$public" ] || {
		echo "error: the key in $PEM is not that of the certificate" >&2
		exit 1
	}
	exit
	;;
remove) exec sh -c "$STOP" ;;
esac

exec sh -c "$RELOAD"
