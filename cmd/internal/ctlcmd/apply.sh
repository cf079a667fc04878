#!/bin/sh
# apply.sh DIR [HOOK]: makes this bundle live in DIR, without an agent: checks the
# layers, unpacks them in order into a new DIR/roots/ID, moves the link
# DIR/current to it, and runs HOOK with OLDROOT, NEWROOT, OLDID and NEWID. When the
# hook fails the link moves back and the hook runs with the roots exchanged.
# Exit status: 0 live, 1 nothing was changed, 2 usage, 9 rolled back, 10 broken.
set -eu
case $#:${1-} in 1:[!-]* | 2:[!-]*) ;; *) echo "usage: $0 DIR [HOOK]" >&2; exit 2 ;; esac
case ${2-} in */*) hook=$(realpath -- "$2") ;; *) hook=${2-} ;; esac
src=$(cd -- "$(dirname -- "$0")" && pwd)
(cd "$src" && sha256sum --check --quiet SHA256SUMS) >&2 ||
	{ echo "error: $src is not what was bundled; nothing was changed" >&2; exit 1; }
id=$(cat "$src/id")
mkdir -p -- "$1/roots"
dir=$(cd -- "$1" && pwd)

new=roots/$id
if [ ! -e "$dir/$new" ]; then
	partial=$dir/roots/.$id.partial
	rm -rf "$partial"
	mkdir "$partial"
	trap 'rm -rf "$partial"' EXIT
	for layer in "$src"/layers/*.tar.gz; do
		tar -xzpf "$layer" -C "$partial"
	done
	sync -f "$partial"
	mv -T "$partial" "$dir/$new"
	sync -f "$dir"
	trap - EXIT
fi

cd "$dir"
old=$(readlink current || true)
if [ "$old" = "$new" ]; then
	echo "$id is live already"
	exit 0
fi

# make_live ROOT OTHER: moves the link to ROOT, and tells the hook.
make_live() {
	if [ -n "$1" ]; then
		ln -sfn "$1" .current.new && mv -T .current.new current || return
	else
		rm -f current || return
	fi
	sync -f . || return
	[ -n "$hook" ] && [ -n "$1" ] || return 0
	OLDROOT=${2:+$dir/$2} OLDID=${2#roots/} NEWROOT=$dir/$1 NEWID=${1#roots/} "$hook"
}

if make_live "$new" "$old"; then
	echo "$id is live in $dir/current"
elif make_live "$old" "$new"; then
	echo "error: the hook failed for $id; ${old:-nothing} is live again" >&2
	exit 9
else
	echo "error: the hook failed for $id, and for ${old:-nothing} as well, which current names" >&2
	exit 10
fi
