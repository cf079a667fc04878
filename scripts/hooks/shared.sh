#!/bin/sh
# shared.sh prepares what stays outside of roots, and then makes the root live.
# It can be run again at any time: what is there already stays as it is.
set -eu
umask 077

shared=$(dirname "$DEPLOY_CURRENT")/shared
mkdir -p "$shared/secrets" "$shared/data"
chmod 0700 "$shared/secrets"

# Values of this host are an administrator's to write.
if [ ! -e "$shared/host.env" ]; then
	echo "error: $shared/host.env is missing: write the values of this host there" >&2
	exit 1
fi

# A secret of this host is made once, under another name first, so that a crash
# leaves none or a whole one.
if [ ! -s "$shared/secrets/session.key" ]; then
	head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$shared/secrets/.session.key.new"
	mv "$shared/secrets/.session.key.new" "$shared/secrets/session.key"
fi

# Each file that the root says it needs must be there, and be nobody else's.
if [ -e "$NEWROOT/etc/needs" ]; then
	while read -r name; do
		file=$shared/secrets/$name
		if [ ! -s "$file" ]; then
			echo "error: $file is missing" >&2
			exit 1
		fi
		chmod 0600 "$file"
	done <"$NEWROOT/etc/needs"
fi

# Here the service is restarted, for instance: systemctl restart web
echo "live: $NEWROOT"
