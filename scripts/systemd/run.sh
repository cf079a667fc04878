#!/bin/bash
# run.sh [FLAG...] runs the tests of this directory under a real systemd, as the
# first process of a container; FLAG... goes to the test program, such as
# -test.run=Idle. It needs root, mmdebstrap and systemd-nspawn.
#
# The container has nothing of this machine but its kernel: its root is a tree
# of its own under a layer in memory, so that each run begins anew, its /tmp, /run,
# network, processes, and cgroups are its own, and what is to be tested is copied
# to a directory that it sees read-only. A systemd that saw the outside would
# empty /tmp, and stop services.
set -euo pipefail
cd "$(dirname "$0")/../.."

if ((EUID != 0)); then
	echo "error: a container takes root" >&2
	exit 1
fi
scripts/deps.sh --containers

cache=${XDG_CACHE_HOME:-$HOME/.cache}/deploy-tools
tree=$cache/systemd-$(sha256sum scripts/systemd/tree.sh | head -c 12)
if [[ ! -d $tree ]]; then
	echo "making $tree" >&2
	mkdir -p "$cache"
	scripts/systemd/tree.sh "$tree"
fi

work=$(mktemp -d)
name=deploytest-$$
groups=()
trap 'rm -rf --one-file-system "$work"; ((${#groups[@]} == 0)) || find "${groups[@]}" -depth -type d -exec rmdir {} +' EXIT

mkdir -p "$work/deploytest/bin" "$work/deploytest/scripts"
CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$work/deploytest/bin/" ./cmd/...
CGO_ENABLED=0 go test -c -tags systemd -o "$work/deploytest/guest" ./scripts/systemd
cp -r deploy docs "$work/deploytest/"
cp -r scripts/hooks "$work/deploytest/scripts/"
# The words of a unit's command line may be quoted.
printf -v flags ' "%s"' -test.v -test.timeout=10m -test.parallel=16 "$@"
cat >"$work/deploytest.service" <<UNIT
[Unit]
Description=Tests
Requires=multi-user.target
After=multi-user.target
SuccessAction=exit-force
FailureAction=exit-force
SuccessActionExitStatus=0
FailureActionExitStatus=1
[Service]
Type=exec
WorkingDirectory=/deploytest
Environment=HOME=/root
ExecStart=/deploytest/guest$flags
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
UNIT

container=(
	systemd-nspawn --quiet --directory="$tree" --volatile=overlay --machine="$name" --hostname=deploytest
	--private-network --resolv-conf=off --timezone=off --link-journal=no --register=no
	--drop-capability=CAP_MKNOD --drop-capability=CAP_SYS_TTY_CONFIG
	--bind-ro="$work/deploytest:/deploytest" --bind-ro="$work/deploytest.service:/etc/systemd/system/deploytest.service"
	--console=read-only
)
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
# Where no systemd runs that could give it one, the container gets a cgroup here.
if [[ ! -d /run/systemd/system ]]; then
	container+=(--keep-unit)
	for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
		[[ -w $hierarchy/cgroup.procs ]] || continue
		groups+=("$hierarchy/$name")
		mkdir "$hierarchy/$name"
	done
fi
# contain WORD... runs a command, or with --boot systemd, in the container.
contain() (
	for group in "${groups[@]}"; do
		echo "$BASHPID" >"$group/cgroup.procs"
	done
	exec unshare --mount --propagation private "${container[@]}" "$@" </dev/null
)

# Look first: a file of ours in each place that a systemd cleans must not be seen.
for dir in /tmp /var/tmp /run; do
	touch "$dir/$name"
done
seen=$(contain /bin/sh -c "ls -d /tmp/$name /var/tmp/$name /run/$name 2>/dev/null" || true)
rm -f "/tmp/$name" "/var/tmp/$name" "/run/$name"
if [[ -n $seen ]]; then
	echo "error: the container sees $seen of the outside: nothing was started" >&2
	exit 1
fi
status=0
contain --boot systemd.wants=deploytest.service systemd.show_status=false | tr -d '\r' | tee "$work/log" || status=$?
if ((status == 0 && $# == 0)); then
	sed -n 's/^matrix: \?//p' "$work/log" >docs/recipes/matrix-systemd.md
fi
exit "$status"
