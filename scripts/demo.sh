#!/bin/bash
# demo.sh shows the whole job on this machine: a registry, an agent, a small
# HTTPS server that is deployed, changed, and taken back twice. Everything lies
# in a temporary directory and is gone afterwards. It fails when any step does
# not do as it is told here.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/deps.sh ssh-keygen

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[[ -t 1 && -z ${NO_COLOR:-} ]] || say() { printf '\n%s\n' "$*"; }

# show COMMAND...: print it as one would type it, and run it.
show() {
	printf '$ %s\n' "${*//$tmp\//}"
	"$@"
}

fail() {
	echo "error: $*" >&2
	for log in registry.log agent.log run/log; do
		[[ ! -s $tmp/$log ]] || { echo "--- the end of $log" && tail -n 15 "$tmp/$log"; } >&2
	done
	exit 1
}

# until_true WHAT COMMAND...: wait, at most 30 s, until the command succeeds.
until_true() {
	local what=$1 end=$((SECONDS + 30))
	shift
	until "$@" >/dev/null 2>&1; do
		((SECONDS < end)) || fail "$what: not within 30 s"
		sleep 0.05
	done
}

# lines_with TEXT COUNT: the agent's log has this many lines with the text.
lines_with() { (($(grep -c -- "$1" "$tmp/agent.log") >= $2)); }

# serves TEXT: what the deployed server answers.
serves() { [[ $("$tmp/bin/demo" get "$url") == "$1" ]]; }
expect() {
	printf '$ get %s\n' "$url"
	"$tmp/bin/demo" get "$url"
	serves "$1" || fail "the server should answer \"$1\""
}

tmp=$(mktemp -d)
pids=()
stop() {
	for pid in "${pids[@]}" $(cat "$tmp/run/pid" 2>/dev/null); do
		kill "$pid" 2>/dev/null || true
	done
	for pid in "${pids[@]}"; do
		wait "$pid" 2>/dev/null || true
	done
	rm -rf "$tmp"
}
trap stop EXIT
trap 'exit 1' INT TERM

say "Building"
mkdir -p "$tmp"/{bin,run,registry,agent,server/bin,server/etc,settings/etc}
CGO_ENABLED=0 go build -trimpath -o "$tmp/bin/" ./cmd/deploy-registry ./cmd/deploy-agent ./cmd/deployctl ./scripts/demo
PATH=$tmp/bin:$PATH
start=$SECONDS
cp scripts/demo/hook.sh "$tmp/hook.sh"

say "Two keys: one for the operator, one for the agent. The registry takes authorized_keys files."
show ssh-keygen -q -t ed25519 -N '' -C operator@demo -f "$tmp/operator"
show ssh-keygen -q -t ed25519 -N '' -C agent@demo -f "$tmp/agent.key"
show cp "$tmp/operator.pub" "$tmp/registry/operator.keys"
show cp "$tmp/agent.key.pub" "$tmp/registry/service.keys"

say "The registry, on a free port of the loopback interface"
echo '$ deploy-registry -addr 127.0.0.1:0 -dir registry -opauth registry/operator.keys -srvauth registry/service.keys &'
deploy-registry -addr 127.0.0.1:0 -addr-file "$tmp/addr" -dir "$tmp/registry" \
	-opauth "$tmp/registry/operator.keys" -srvauth "$tmp/registry/service.keys" 2>"$tmp/registry.log" &
pids+=($!)
until_true "the registry listens" test -s "$tmp/addr"
DEPLOYCTL_ADDR=$(cat "$tmp/addr")
DEPLOYCTL_FINGERPRINT=$(grep -o 'SHA256:[A-Za-z0-9+/]*' "$tmp/registry.log" | head -n 1)
DEPLOYCTL_KEY=$tmp/operator
export DEPLOYCTL_ADDR DEPLOYCTL_FINGERPRINT DEPLOYCTL_KEY
unset SSH_AUTH_SOCK
echo "DEPLOYCTL_ADDR=$DEPLOYCTL_ADDR DEPLOYCTL_FINGERPRINT=$DEPLOYCTL_FINGERPRINT"

say "Two components: a small HTTPS server with its certificate, and its settings"
cp "$tmp/bin/demo" "$tmp/server/bin/demo"
demo cert "$tmp/server/etc" site
demo cert "$tmp/server/etc" forgotten
echo '{"Greeting": "hello, version 1"}' >"$tmp/settings/etc/settings.json"
show deployctl pack "$tmp/server" -o "$tmp/server-1.tar.gz"
show deployctl pack "$tmp/settings" -o "$tmp/settings-1.tar.gz"
show deployctl addver -name server -version 1 -file "$tmp/server-1.tar.gz"
show deployctl addver -name settings -version 1 -file "$tmp/settings-1.tar.gz"
show deployctl addconf -name web -layer server:1 -layer settings:1

say "The agent, with a hook that restarts the server from NEWROOT, and two checks from outside"
port=$(demo port)
echo "$port" >"$tmp/run/port"
url=https://127.0.0.1:$port/
tls="type=tls,addr=127.0.0.1:$port,cert=etc/site.pem"
http="type=http,url=https://127.0.0.1:$port/version,insecure=true,json=/id,equals={newid}"
echo "\$ deploy-agent -name web -dir agent -key agent.key -poll 200ms -script hook.sh -verify $tls -verify $http &"
deploy-agent -addr "$DEPLOYCTL_ADDR" -fp "$DEPLOYCTL_FINGERPRINT" -key "$tmp/agent.key" -name web -dir "$tmp/agent" \
	-state "$tmp/agent/state.json" -poll 200ms -script "$tmp/hook.sh" -verify-total 4s -verify "$tls" -verify "$http" 2>"$tmp/agent.log" &
pids+=($!)

say "1. Version 1 goes live"
until_true "version 1 is committed" lines_with 'msg="state entered" state=Idle from_state=Committing' 1
expect "hello, version 1"

printf '%s\n' "hello, version 1" "hello, version 2" "hello, wrong certificate" >"$tmp/bodies"
demo poll "$url" "$tmp/bodies" >"$tmp/polled" &
poller=$!
pids+=("$poller")

say "2. New settings go live"
echo '{"Greeting": "hello, version 2"}' >"$tmp/settings/etc/settings.json"
show deployctl pack "$tmp/settings" -o "$tmp/settings-2.tar.gz"
show deployctl addver -name settings -version 2 -file "$tmp/settings-2.tar.gz"
show deployctl bumpconf -name web -component settings
until_true "version 2 is committed" lines_with 'msg="state entered" state=Idle from_state=Committing' 2
expect "hello, version 2"

say "3. A version whose hook fails: rolled back, the old one answers"
touch "$tmp/settings/etc/fail"
show deployctl pack "$tmp/settings" -o "$tmp/settings-3.tar.gz"
show deployctl addver -name settings -version 3 -file "$tmp/settings-3.tar.gz"
show deployctl bumpconf -name web -component settings
until_true "version 3 is rolled back" lines_with 'msg="state entered" state=Idle from_state=Discarding' 1
grep 'state=Hooking.*error=' "$tmp/agent.log" | tail -n 1
expect "hello, version 2"

say "4. A version that starts well, but serves the wrong certificate: its fingerprint gives it away"
rm "$tmp/settings/etc/fail"
echo '{"Greeting": "hello, wrong certificate", "Certificate": "etc/forgotten"}' >"$tmp/settings/etc/settings.json"
show deployctl pack "$tmp/settings" -o "$tmp/settings-4.tar.gz"
show deployctl addver -name settings -version 4 -file "$tmp/settings-4.tar.gz"
show deployctl bumpconf -name web -component settings
until_true "version 4 is rolled back" lines_with 'msg="state entered" state=Idle from_state=Discarding' 2
grep 'state=Verifying.*error=' "$tmp/agent.log" | tail -n 1
lines_with 'state=Discarding from_state=Reverifying' 2 || fail "the old root was not verified again"
expect "hello, version 2"
echo "and the old root was verified again, with its own certificate"

say "5. What the registry remembers"
show deployctl history -name web
say "and what the agent did, by its log"
grep -o 'msg="state entered".*' "$tmp/agent.log" | sed 's/msg="state entered" //; s/ configuration=web//' | tail -n 9

say "6. What a client saw that asked all the time"
kill "$poller"
wait "$poller" || fail "the poller got something that is neither old nor new content"
cat "$tmp/polled"

say "Done, in $((SECONDS - start)) seconds after the build."
