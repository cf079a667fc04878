#!/bin/sh
# static.sh has a static site served from html/ of each root, by a server that
# finds it through the link `current` and so needs no reload. It is the agent's
# -check-script and -script in one.
set -eu

# Where these differ, a script that sets them executes this one.
: "${FIRST:=html/index.html}" # without it, it is not the site
: "${RELOAD:=true}"           # who else has to hear of it: a cache, for instance

case $DEPLOY_PHASE in
check)
	[ -s "$NEWROOT/$FIRST" ] || {
		echo "error: $FIRST is missing or empty" >&2
		exit 1
	}
	# The server is another user, and answers 403 to what it may not read.
	hidden=$(find "$NEWROOT/html" \( -type f ! -perm -o+r -o -type d ! -perm -o+rx \) -print -quit)
	[ -z "$hidden" ] || {
		echo "error: $hidden is not readable for everyone" >&2
		exit 1
	}
	;;
deploy) exec sh -c "$RELOAD" ;;
esac
