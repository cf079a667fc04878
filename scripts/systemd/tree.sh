#!/bin/bash
# tree.sh DIR makes a small Debian with systemd in DIR, which must not exist yet.
set -eu
umask 022

dir=$1
packages=systemd,systemd-sysv,dbus,procps,openssh-client,strace,nginx-light

new=$dir.new
rm -rf --one-file-system "$new"
mmdebstrap --quiet --variant=minbase "--include=$packages" bookworm "$new"
echo deploytest >"$new/etc/hostname"
# Nobody logs in there, and nothing is updated.
for unit in console-getty.service systemd-logind.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer; do
	ln -sf /dev/null "$new/etc/systemd/system/$unit"
done
mv "$new" "$dir"
