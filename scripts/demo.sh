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
	local word line='$' nothing="''"
	for word; do line+=" ${word:-$nothing}"; done
	echo "$line"
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
serves() { [[ $(demo get "$url") == "$1" ]]; }
expect() {
	printf '$ get %s\n' "$url"
	demo get "$url"
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
cp scripts/demo/hook.sh "$tmp/hook.sh"
PATH=$tmp/bin:$PATH
cd "$tmp"
start=$SECONDS

say "Two keys: one for the operator, one for the agent. The registry takes authorized_keys files."
show ssh-keygen -q -t ed25519 -N '' -C operator@demo -f operator
show ssh-keygen -q -t ed25519 -N '' -C agent@demo -f agent.key
show cp operator.pub registry/operator.keys
show cp agent.key.pub registry/service.keys

say "The registry, on a free port of the loopback interface"
echo '$ deploy-registry -addr 127.0.0.1:0 -dir registry -opauth registry/operator.keys -srvauth registry/service.keys &'
deploy-registry -addr 127.0.0.1:0 -addr-file addr -dir registry \
	-opauth registry/operator.keys -srvauth registry/service.keys 2>registry.log &
pids+=($!)
until_true "the registry listens" test -s addr
DEPLOYCTL_ADDR=$(cat addr)
DEPLOYCTL_FINGERPRINT=$(grep -o 'SHA256:[A-Za-z0-9+/]*' registry.log | head -n 1)
DEPLOYCTL_KEY=operator
export DEPLOYCTL_ADDR DEPLOYCTL_FINGERPRINT DEPLOYCTL_KEY
unset SSH_AUTH_SOCK
echo "DEPLOYCTL_ADDR=$DEPLOYCTL_ADDR DEPLOYCTL_FINGERPRINT=$DEPLOYCTL_FINGERPRINT"

say "Two components: a small HTTPS server with its certificate, and its settings"
cp bin/demo server/bin/demo
demo cert server/etc site
demo cert server/etc forgotten
echo '{"Greeting": "hello, version 1"}' >settings/etc/settings.json
show deployctl pack server -o server-1.tar.gz
show deployctl pack settings -o settings-1.tar.gz
show deployctl addver -name server -version 1 -file server-1.tar.gz
show deployctl addver -name settings -version 1 -file settings-1.tar.gz
show deployctl addconf -name web -layer server:1 -layer settings:1

say "The agent, with a hook that restarts the server from NEWROOT, and two checks from outside"
port=$(demo port)
echo "$port" >run/port
url=https://127.0.0.1:$port/
tls="type=tls,addr=127.0.0.1:$port,cert=etc/site.pem"
http="type=http,url=https://127.0.0.1:$port/version,insecure=true,json=/id,equals={newid}"
echo "\$ deploy-agent -name web -dir agent -key agent.key -poll 200ms -script ./hook.sh -verify $tls -verify $http &"
deploy-agent -addr "$DEPLOYCTL_ADDR" -fp "$DEPLOYCTL_FINGERPRINT" -key agent.key -name web -dir agent \
	-state agent/state.json -poll 200ms -script ./hook.sh -verify-total 4s -verify "$tls" -verify "$http" 2>agent.log &
pids+=($!)

say "1. Version 1 goes live"
until_true "version 1 is committed" lines_with 'msg="state entered" configuration=web state=Idle from_state=Committing' 1
expect "hello, version 1"

printf '%s\n' "hello, version 1" "hello, version 2" "hello, wrong certificate" >bodies
demo poll "$url" bodies >polled &
poller=$!
pids+=("$poller")

say "2. New settings go live"
echo '{"Greeting": "hello, version 2"}' >settings/etc/settings.json
show deployctl pack settings -o settings-2.tar.gz
show deployctl addver -name settings -version 2 -file settings-2.tar.gz
show deployctl bumpconf -name web -component settings
until_true "version 2 is committed" lines_with 'msg="state entered" configuration=web state=Idle from_state=Committing' 2
expect "hello, version 2"

say "3. A version whose hook fails: rolled back, the old one answers"
touch settings/etc/fail
show deployctl pack settings -o settings-3.tar.gz
show deployctl addver -name settings -version 3 -file settings-3.tar.gz
show deployctl bumpconf -name web -component settings
until_true "version 3 is rolled back" lines_with 'msg="state entered" configuration=web state=Idle from_state=Discarding' 1
grep 'state=Hooking.*error=' agent.log | tail -n 1
expect "hello, version 2"

say "4. A version that starts well, but serves the wrong certificate: its fingerprint gives it away"
rm settings/etc/fail
echo '{"Greeting": "hello, wrong certificate", "Certificate": "etc/forgotten"}' >settings/etc/settings.json
show deployctl pack settings -o settings-4.tar.gz
show deployctl addver -name settings -version 4 -file settings-4.tar.gz
show deployctl bumpconf -name web -component settings
until_true "version 4 is rolled back" lines_with 'msg="state entered" configuration=web state=Idle from_state=Discarding' 2
grep 'state=Verifying.*error=' agent.log | tail -n 1
lines_with 'state=Discarding from_state=Reverifying' 2 || fail "the old root was not verified again"
expect "hello, version 2"
echo "and the old root was verified again, with its own certificate"

say "5. What the registry remembers"
show deployctl history -name web
say "and what the agent did, by its log"
grep -o 'msg="state entered".*' agent.log | sed 's/msg="state entered" configuration=web //' | tail -n 9

say "6. What a client saw that asked all the time"
kill "$poller"
wait "$poller" || fail "the poller got something that is neither old nor new content"
cat polled

say "Done, in $((SECONDS - start)) seconds after the build."
