#!/bin/sh
# postfix.sh has Postfix serve from roots that hold its settings in postfix/, and
# key, certificate and chain in one file. It is the agent's -check-script, -script
# and -remove-script in one.
set -eu

# Where these differ, a script that sets them executes this one.
: "${PEM:=certs/mail.pem}" # below the root
: "${RELOAD:=systemctl reload-or-restart postfix@-}"
: "${STOP:=systemctl stop postfix@-}"

case $DEPLOY_PHASE in
check)
	postconf -c "$NEWROOT/postfix" >/dev/null
	postfix -c "$NEWROOT/postfix" check || {
		echo 'error: postfix check fails: the log of mail says why' >&2
		exit 1
	}
	# Postfix does not look at them, and goes on without TLS where they are of no use.
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

sh -c "$RELOAD"

# What it cannot use, a port that is taken for instance, ends all of Postfix, a
# moment after it was asked. A reload-or-restart starts it again on the way back.
sleep 1
postfix -c "$DEPLOY_CURRENT/postfix" status || {
	echo 'error: Postfix has ended: the log of mail says why' >&2
	exit 1
}
