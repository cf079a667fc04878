#!/bin/bash
# fuzz.sh [TIME [PATTERN]] runs every fuzz test for TIME (30s), one after the
# other: those of which "PACKAGE NAME" matches the extended regular expression
# PATTERN. It goes on after one that has found something, and fails in the end.
#
# With KEEP=N it then puts the N shortest inputs that found new paths beside the
# test, in testdata/fuzz/NAME, where every run of the tests goes through them.
set -eu
cd "$(dirname "$0")/.."

keep() {
	local dir=$1 found=$2 file
	[[ -d $found ]] || return 0
	mkdir -p "$dir"
	# The names are digests, without anything to quote.
	find "$found" -type f -size -2k -printf '%s %f\n' | sort -n | head -n "$KEEP" | while read -r _ file; do
		cp -n "$found/$file" "$dir/$file"
	done
}

failed=()
for package in $(go list ./...); do
	for name in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || :); do
		[[ "$package $name" =~ ${2:-.} ]] || continue
		echo "$package $name"
		# Coverage differs a little each time where goroutines run: without a limit
		# most of the time goes into shortening inputs.
		go test -run '^$' -fuzz "^$name\$" -fuzztime "${1:-30s}" -fuzzminimizetime 20x "$package" || failed+=("$package $name")
		[[ -z ${KEEP:-} ]] || keep "$(go list -f '{{.Dir}}' "$package")/testdata/fuzz/$name" "$(go env GOCACHE)/fuzz/$package/$name"
	done
done
((${#failed[@]} == 0)) && exit
printf 'error: %s found something: see its testdata/fuzz\n' "${failed[@]}" >&2
exit 1
