#!/bin/bash
# check.sh is the one gate, for developers and for CI. It runs every check even
# when one fails, and ends with the list of what failed and how to mend it.
# The functions are called by name, through check.
# shellcheck disable=SC2317
set -u
cd "$(dirname "$0")/.." || exit

failed=()

# check NAME MEND COMMAND...: run the command and show its output if it fails.
check() {
	local name=$1 mend=$2 output
	shift 2
	if output=$("$@" 2>&1); then
		echo "ok    $name"
		return
	fi
	echo "FAIL  $name"
	[[ -z $output ]] || printf '%s\n' "$output" | sed 's/^/      /'
	failed+=("$name: $mend")
}

formatted() {
	local files
	files=$(gofmt -l . 2>&1)
	[[ -z $files ]] || { echo "$files" && false; }
}

# scripts lists every shell script, by its name or by its first line.
scripts() {
	local file
	while IFS= read -r file; do
		case $file in
		*.sh | *.bash) echo "$file" ;;
		*) if head -c 64 "$file" | head -n 1 | tr -d '\0' | grep -Eq '^#!.*\b(ba|da)?sh\b'; then echo "$file"; fi ;;
		esac
	done < <(find . -name .git -prune -o -path ./bin -prune -o -type f -print | sort)
}

scripts_are_clean() {
	local files
	mapfile -t files < <(scripts)
	shellcheck "${files[@]}"
}

# units_are_clean verifies the systemd units, with a program in place of ours,
# which need not be installed here.
units_are_clean() {
	local dir unit
	dir=$(mktemp -d)
	for unit in deploy/*.service; do
		sed "s,^ExecStart=/usr/bin/deploy-[a-z]*,ExecStart=$(command -v true)," "$unit" >"$dir/${unit##*/}"
	done
	systemd-analyze verify --man=no "$dir"/*.service
	local status=$?
	rm -rf "$dir"
	return "$status"
}

# exposure prints how exposed systemd finds a unit: 0 is best, 10 worst. It fails
# above the threshold, in tenths.
exposure() {
	systemd-analyze security --offline=true "--threshold=$2" "deploy/$1" | tail -n 1
	((PIPESTATUS[0] == 0))
}

check gofmt 'run "gofmt -w ."' formatted
check 'go vet' 'mend what it says' go vet -tags systemd,power ./...
check staticcheck 'mend what it says' go tool -modfile=scripts/tools/go.mod staticcheck -tags systemd,power ./...
check 'go mod tidy' 'run "go mod tidy"' go mod tidy -diff
check 'go mod tidy, tools' 'run "go mod tidy" in scripts/tools' go -C scripts/tools mod tidy -diff
check shellcheck 'mend what it says; if it is not installed, run scripts/deps.sh' scripts_are_clean
check units 'mend what it says; if systemd-analyze is not installed, run scripts/deps.sh' units_are_clean
check 'exposure of the registry' 'harden deploy/deploy-registry.service again' exposure deploy-registry.service 20
check arrows 'take the import out, or change the table and its document together' go test -count=1 -run 'Arrows|Floors' ./cmd
check documents 'run "go test ./cmd ./agent -run Docs -update"' go test -count=1 -run Docs ./cmd ./agent

# What would bind the agent would bind its hooks, so it has no threshold.
exposure deploy-registry.service 100
exposure deploy-agent@.service 100

((${#failed[@]} == 0)) && exit
echo
printf '%s\n' "${failed[@]}"
exit 1
