#!/bin/bash
# fuzz.sh [TIME [PATTERN]] runs every fuzz test for TIME (30s): those of which
# "PACKAGE NAME" matches the extended regular expression PATTERN, as many at
# once as there are processors. It goes on after one that has found something,
# and fails in the end.
#
# With KEEP=N it then puts the N shortest inputs that found new paths beside the
# test, in testdata/fuzz/NAME, where every run of the tests goes through them.
set -eu
cd "$(dirname "$0")/.."

one() {
	local package=$1 name=$2 log failed=0
	log=$(mktemp)
	# Coverage differs a little each time where goroutines run: without a limit
	# most of the time goes into shortening inputs.
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$TIME" -fuzzminimizetime 20x -parallel 1 "$package" >"$log" 2>&1 || failed=1
	! ((failed)) || ! outOfTime "$log" || failed=0
	[[ -z ${KEEP:-} ]] || keep "$(go list -f '{{.Dir}}' "$package")/testdata/fuzz/$name" "$(go env GOCACHE)/fuzz/$package/$name"
	echo "$package $name: $(grep -o 'execs: [0-9]*' "$log" | tail -n 1)"
	if ((failed)); then
		cat "$log"
		echo "error: $package $name found something: see its testdata/fuzz" >&2
	fi
	rm "$log"
	return "$failed"
}

# outOfTime tells the end of the time from a finding. Go before 1.27 sometimes calls
# it a failure (go.dev/issue/75804): of this kind, with nothing else said and no
# input written.
outOfTime() {
	[[ $(grep -A 1 -e '^--- FAIL' "$1" | sed 1d) == "    context deadline exceeded" ]] && ! grep -q 'Failing input written' "$1"
}

keep() {
	local dir=$1 found=$2 file
	[[ -d $found ]] || return 0
	mkdir -p "$dir"
	# The names are digests, without anything to quote.
	find "$found" -type f -size -2k -printf '%s %f\n' | sort -n | head -n "$KEEP" | while read -r _ file; do
		cp -n "$found/$file" "$dir/$file"
	done
}

export TIME=${1:-30s} KEEP=${KEEP:-}
export -f one outOfTime keep
for package in $(go list ./...); do
	for name in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || :); do
		[[ ! "$package $name" =~ ${2:-.} ]] || echo "$package $name"
	done
done | xargs -r -P "$(nproc)" -L 1 bash -c 'set -eu; one "$@"' one
