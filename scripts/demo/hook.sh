#!/bin/sh
# hook.sh makes the root in $NEWROOT live: it stops the server that runs and
# starts the one of the new root. The agent calls it with the roots exchanged to
# go back, so it needs no code for that.
set -eu

# What belongs to this host and to no root lies beside this script.
run=$(cd "$(dirname "$0")" && pwd)/run

if [ -e "$NEWROOT/etc/fail" ]; then
	echo "this version asks its hook to fail"
	exit 1
fi
# alive: a process that has ended but not been waited for has no exe.
alive() { [ -e "/proc/$(cat "$run/pid")/exe" ]; }

if [ -s "$run/pid" ] && alive; then
	kill "$(cat "$run/pid")"
	while alive; do sleep 0.01; done
fi
rm -f "$run/ready"
"$NEWROOT/bin/demo" serve "$NEWROOT" "127.0.0.1:$(cat "$run/port")" "$NEWID" "$run/ready" >>"$run/log" 2>&1 &
echo $! >"$run/pid"
tries=0
until [ -e "$run/ready" ]; do
	tries=$((tries + 1))
	if [ "$tries" -gt 1000 ] || ! alive; then
		echo "the server did not start:"
		tail -n 3 "$run/log"
		exit 1
	fi
	sleep 0.01
done
echo "serving $NEWROOT"
