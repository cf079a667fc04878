#!/bin/bash
# fuzz.sh [TIME] runs every fuzz test for TIME (30s), one after the other.
set -eu
cd "$(dirname "$0")/.."

for package in $(go list ./...); do
	for name in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || :); do
		echo "$package $name"
		go test -run '^$' -fuzz "^$name\$" -fuzztime "${1:-30s}" "$package"
	done
done
