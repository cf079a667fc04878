#!/bin/bash
# deps.sh [--recipes NAME,...|--programs] [COMMAND...] installs the Debian packages
# that the tests need, with the servers of these recipes, or the programs that
# checks are tried on, or only those that have these commands. It says nothing when they are there. Without the right to install them
# it prints the command.
set -eu

# Command or file, and package that has it. The race detector links with the C
# library.
needed='
ssh             openssh-client
sftp            openssh-client
ssh-keygen      openssh-client
shellcheck      shellcheck
gcc             gcc
systemd-analyze systemd
sshd            openssh-server
ssh-audit       ssh-audit
promtool        prometheus
mkfs.ext4       e2fsprogs
mkfs.xfs        xfsprogs
ssh-audit       ssh-audit
curl            curl
lftp            lftp
rclone          rclone
sshfs           sshfs
psftp           putty-tools
puttygen        putty-tools
/usr/include/stdlib.h                            libc6-dev
/usr/lib/python3/dist-packages/paramiko          python3-paramiko
/usr/lib/python3/dist-packages/asyncssh          python3-asyncssh
/usr/share/perl5/Net/SFTP/Foreign.pm             libnet-sftp-foreign-perl
'

# Recipe, command or file, and package. A package that brings a server may start
# it, so they are installed for the recipes that are to be tried only.
servers='
nginx           nginx           nginx-light
nginx-published nginx           nginx-light
apache          apache2         apache2-bin
apache          openssl         openssl
traefik         openssl         openssl
envoy           openssl         openssl
haproxy         haproxy         haproxy
caddy           caddy           caddy
postfix         postfix         postfix
postfix         openssl         openssl
dovecot         doveadm         dovecot-imapd
dovecot         openssl         openssl
static          nginx           nginx-light
node            node            nodejs
jvm             javac           default-jdk-headless
jvm             curl            curl
jvm             nginx           nginx-light
'

# Programs that checks are tried on. Their packages have them run from the next
# boot on: people are spared that, and their tests skip what is not there.
programs='
/usr/lib/postfix/sbin/master            postfix
doveadm                                 dovecot-imapd
/usr/lib/dovecot/pop3-login             dovecot-pop3d
/usr/lib/dovecot/managesieve-login      dovecot-managesieved
pg_ctlcluster                           postgresql
vsftpd                                  vsftpd
slapd                                   slapd
'
if [[ ${1-} == --recipes ]]; then
	while read -r recipe server; do
		[[ ,$2, != *,$recipe,* ]] || needed+=$server$'\n'
	done <<<"$servers"
	shift 2
elif [[ ${1-} == --programs ]]; then
	needed+=$programs
	shift
elif [[ -n ${CI-} ]]; then
	needed+=$programs
fi
containers='
mmdebstrap      mmdebstrap
systemd-nspawn  systemd-container
'
if [[ ${1-} == --containers ]]; then
	needed=$containers
	shift
fi

PATH=$PATH:/usr/sbin:/sbin
packages=()
while read -r command package; do
	[[ -n $command ]] || continue
	(($# == 0)) || [[ " $* " == *" $command "* ]] || continue
	[[ $command == /* && -e $command ]] || command -v "$command" >/dev/null || packages+=("$package")
done <<<"$needed"
((${#packages[@]})) || exit 0

mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
install="apt-get install -y --no-install-recommends ${packages[*]}"

root=()
if ((EUID != 0)); then
	root=(sudo -n)
fi
if ! command -v apt-get >/dev/null || ! "${root[@]}" true 2>/dev/null; then
	echo "error: not installed: ${packages[*]}" >&2
	echo "hint: run 'sudo $install', or what your system has in its place" >&2
	exit 1
fi

# apt runs apt-get with the words given, and shows its output only if it fails.
apt() {
	local output
	output=$("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "$@" </dev/null 2>&1) || {
		printf '%s\n' "$output"
		return 1
	}
}

# What a package brings is not to run here and now (invoke-rc.d(8)). A policy that
# is there already is somebody's.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
	trap '"${root[@]}" rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
	"${root[@]}" chmod 755 "$policy"
fi

echo "installing ${packages[*]}" >&2
# The lists of packages may be missing or old: fetch them only then.
apt install -qq -y --no-install-recommends "${packages[@]}" >/dev/null ||
	{ apt update -qq && apt install -qq -y --no-install-recommends "${packages[@]}"; } >&2 ||
	{ echo "error: cannot run '$install'" >&2 && exit 1; }
