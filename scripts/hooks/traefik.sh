#!/bin/sh
# traefik.sh has Traefik serve what roots say in dynamic.yml, where @ROOT@ stands for
# the root. It is the agent's -check-script, -script and -remove-script in one.
set -eu

# Where these differ, a script that sets them executes this one.
: "${WATCHED:=/etc/traefik/dynamic}" # directory of Traefik's file provider
: "${RELOAD:=systemctl start traefik}"

# check_keys: each certs/NAME.key belongs to the first certificate in
# certs/NAME.pem. Traefik has no command that looks at settings.
check_keys() {
	for key in "$NEWROOT"/certs/*.key; do
		if [ "$(openssl pkey -in "$key" -pubout)" != "$(openssl x509 -in "${key%.key}.pem" -noout -pubkey)" ]; then
			echo "error: $key does not belong to the certificate in ${key%.key}.pem" >&2
			return 1
		fi
	done
}

settings=$WATCHED/$DEPLOY_NAME.yml
case $DEPLOY_PHASE in
check)
	check_keys
	exit
	;;
remove) exec rm -f "$settings" ;;
esac

# Traefik looks at certificates when the settings that name them have changed, and
# only then. They appear whole, and under a name that it reads.
sed "s,@ROOT@,$NEWROOT,g" "$NEWROOT/dynamic.yml" >"$settings.new"
mv "$settings.new" "$settings"
exec sh -c "$RELOAD"
