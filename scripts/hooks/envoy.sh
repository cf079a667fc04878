#!/bin/sh
# envoy.sh looks at the certificates of a root that Envoy will serve: Envoy notices
# by itself that the link `current` was moved. It is the agent's -check-script and
# -script in one.
set -eu

# Where this differs, a script that sets it executes this one.
: "${RELOAD:=systemctl start envoy}"

# check_keys: each certs/NAME.key belongs to the first certificate in
# certs/NAME.pem. Envoy would refuse it, and tell only its log.
check_keys() {
	for key in "$NEWROOT"/certs/*.key; do
		if [ "$(openssl pkey -in "$key" -pubout)" != "$(openssl x509 -in "${key%.key}.pem" -noout -pubkey)" ]; then
			echo "error: $key does not belong to the certificate in ${key%.key}.pem" >&2
			return 1
		fi
	done
}

case $DEPLOY_PHASE in
check) check_keys ;;
deploy) exec sh -c "$RELOAD" ;;
esac
