#!/bin/sh
# hook.sh makes the root in $NEWROOT live: it stops the server that runs and
# starts the one of the new root. The agent calls it with the roots exchanged to
# go back, so it needs no code for that.
set -eu

# What belongs to this host and to no root lies beside this script.
run=$(dirname "$0")/run

if [ -e "$NEWROOT/etc/fail" ]; then
	echo "this version asks its hook to fail"
	exit 1
fi
if [ -s "$run/pid" ]; then
	kill "$(cat "$run/pid")" 2>/dev/null || true
	while kill -0 "$(cat "$run/pid")" 2>/dev/null; do sleep 0.02; done
fi
rm -f "$run/ready"
"$NEWROOT/bin/demo" serve "$NEWROOT" "127.0.0.1:$(cat "$run/port")" "$NEWID" "$run/ready" >>"$run/log" 2>&1 &
echo $! >"$run/pid"
tries=0
until [ -e "$run/ready" ]; do
	tries=$((tries + 1))
	if [ "$tries" -gt 500 ] || ! kill -0 "$(cat "$run/pid")" 2>/dev/null; then
		echo "the server did not start:"
		tail -n 3 "$run/log"
		exit 1
	fi
	sleep 0.02
done
echo "serving $NEWROOT"
