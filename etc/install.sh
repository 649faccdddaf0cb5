#!/bin/sh
# install.sh: changes the system for `make install`, `make install-sendmail` and uninstalling.
#
#	install.sh user [SYSUSERS.D/FILE TMPFILES.D/FILE]
#	install.sh sendmail LINKS MAILER.CONF
#	install.sh no-sendmail LINKS
#	install.sh running PENFOLDCTL
#	install.sh next PENFOLDCTL PENFOLD.CONF
#
# user creates the user that penfoldd runs as, and the spool (SPOOL), with the tools of
# this system. If it does not run as root, or DESTDIR is set, it only prints the commands.
#
# sendmail makes the system's sendmail, mailq and newaliases those in the directory LINKS,
# in the first of these ways that is possible:
# - If mailwrapper(8) has a configuration, MAILER.CONF replaces it.
# - If the system's alternatives have a group for sendmail, LINKS is chosen there.
# - Otherwise it creates symbolic links, and keeps the old files as NAME.orig. Where there
#   is dpkg, it diverts them to these names.
# no-sendmail undoes this, but leaves alone what was replaced since. With DESTDIR, both
# change only files below it. Both can be repeated, and print what they do.
#
# running fails while penfold is in use: if systemd runs or has enabled one of its units,
# or if a daemon answers PENFOLDCTL. It then prints how to stop penfold, because
# uninstalling removes the files that are needed for that.
#
# next prints what the person who has installed penfold does next. With DESTDIR, it prints nothing.
set -eu

name=penfold home=${SPOOL:-/var/spool/penfold}
DESTDIR=${DESTDIR:-}
places='/usr/sbin/sendmail /usr/lib/sendmail /usr/bin/mailq /usr/bin/newaliases'

has() {
	command -v "$1" > /dev/null 2>&1
}

step() {
	echo "$*"
	"$@"
}

# $do is `step` to run the commands, or `echo` to print them only.
create_user() {
	if [ -f "$DESTDIR${1:-}" ] && has systemd-sysusers; then
		$do systemd-sysusers "$1"
	elif has useradd; then
		$do useradd --system --user-group --home-dir $home --shell /usr/sbin/nologin $name
	elif has pw; then
		$do pw useradd $name -c 'Mail transfer agent' -d $home -s /usr/sbin/nologin
	elif has addgroup && has adduser; then # busybox
		$do addgroup -S $name
		$do adduser -S -D -H -h $home -s /sbin/nologin -G $name $name
	else
		echo "create a user and a group $name, without a password and a shell"
	fi
}

create_directories() {
	if [ -f "$DESTDIR${1:-}" ] && has systemd-tmpfiles; then
		$do systemd-tmpfiles --create "$1"
	else
		$do install -d -o $name -g $name -m 700 $home
	fi
}

user() {
	do=step
	if [ -n "$DESTDIR" ] || [ "$(id -u)" != 0 ]; then
		do=echo
		echo 'To be done by root where penfoldd is to run:'
	fi
	if [ "$do" = echo ] || ! id $name > /dev/null 2>&1; then
		create_user "${1:-}"
	fi
	create_directories "${2:-}"
}

# Prints the alternatives group that a path belongs to, if any.
group_of() {
	case $(readlink "$DESTDIR$1" || true) in
	/etc/alternatives/*) basename "$(readlink "$DESTDIR$1")" ;;
	esac
}

alternatives() {
	if has update-alternatives; then step update-alternatives "$@"; else step alternatives "$@"; fi
}

# Prints the group that $1 is, or is a slave of, as far as dpkg knows, and otherwise $2. The file of a
# group has its mode, its link, and the name and the link of each slave, up to an empty line.
master_of() {
	for file in /var/lib/dpkg/alternatives/*; do
		[ "${file##*/}" != "$1" ] || { echo "$1" && return; }
		[ ! -f "$file" ] || ! sed -e 1,2d -e '/^$/q' "$file" | sed -n 'p;n' | grep -qx "$1" || { echo "${file##*/}" && return; }
	done
	echo "$2"
}

# Prints the link of a group.
link_of() {
	sed -n 2p "/var/lib/dpkg/alternatives/$1" 2> /dev/null | grep . || echo /usr/sbin/sendmail
}

# Chooses LINKS in the group of sendmail. The other paths that point into /etc/alternatives become slaves
# of that group. The package sendmail of Debian has two groups, and /usr/sbin/sendmail is a slave of one.
choose_alternative() {
	links=$1 first=$(master_of "$2" "$2")
	masters=$first
	for place in $places; do
		slave=$(group_of "$place") master=$first
		[ -z "$slave" ] || master=$(master_of "$slave" "$first")
		case " $masters " in *" $master "*) ;; *) masters="$masters $master" ;; esac
	done
	for master in $masters; do
		set -- --install "$(link_of "$master")" "$master" "$links/sendmail" 100
		for place in $places; do
			slave=$(group_of "$place")
			[ -z "$slave" ] || [ "$slave" = "$master" ] || [ "$(master_of "$slave" "$first")" != "$master" ] ||
				set -- "$@" --slave "$place" "$slave" "$links/$(basename "$place")"
		done
		alternatives "$@"
		alternatives --set "$master" "$links/sendmail"
	done
}

# Whether a path is a link into LINKS.
ours() {
	[ "$(readlink "$DESTDIR$1" || true)" = "$links/$(basename "$1")" ]
}

exists() {
	[ -e "$1" ] || [ -h "$1" ]
}

# Whether files can be diverted. A diversion also applies to packages installed later.
diverts() {
	[ -z "$DESTDIR" ] && has dpkg-divert
}

replace() {
	for place in $places; do
		! ours "$place" || continue
		[ -z "$(group_of "$place")" ] || [ -n "$DESTDIR" ] || continue
		mkdir -p "$DESTDIR${place%/*}"
		if diverts; then
			step dpkg-divert --quiet --local --rename --divert "$place.orig" --add "$place"
		fi
		if exists "$DESTDIR$place"; then
			step mv -f "$DESTDIR$place" "$DESTDIR$place.orig"
		fi
		step ln -s "$links/$(basename "$place")" "$DESTDIR$place"
	done
}

restore() {
	for place in $places; do
		ours "$place" || continue
		step rm "$DESTDIR$place"
		if diverts && [ "$(dpkg-divert --listpackage "$place")" = LOCAL ]; then
			step dpkg-divert --quiet --rename --remove "$place"
		fi
		if ! exists "$DESTDIR$place" && exists "$DESTDIR$place.orig"; then
			step mv "$DESTDIR$place.orig" "$DESTDIR$place"
		fi
	done
}

# Prints the path of the configuration of mailwrapper(8), if there is one.
wrapper() {
	for file in /etc/mail/mailer.conf /etc/mailer.conf; do
		[ ! -f "$DESTDIR$file" ] || { echo "$DESTDIR$file" && return; }
	done
}

sendmail() {
	links=$1 conf=$(wrapper) group=$(group_of /usr/sbin/sendmail)
	if [ -n "$conf" ]; then
		cmp -s "$2" "$conf" || step mv -f "$conf" "$conf.orig"
		step install -m 644 "$2" "$conf"
	elif [ -n "$group" ] && [ -z "$DESTDIR" ]; then
		choose_alternative "$links" "$group"
	else
		replace
	fi
}

no_sendmail() {
	links=$1 conf=$(wrapper) group=$(group_of /usr/sbin/sendmail)
	if [ -n "$conf" ] && [ -f "$conf.orig" ] && grep -q "$links/sendmail" "$conf"; then
		step mv -f "$conf.orig" "$conf"
	fi
	if [ -n "$group" ] && [ -z "$DESTDIR" ]; then
		for master in $(for place in $places; do
			slave=$(group_of "$place")
			[ -z "$slave" ] || master_of "$slave" "$group"
		done | sort -u); do
			alternatives --remove "$master" "$links/sendmail"
		done
	fi
	restore
}

running() {
	[ -z "$DESTDIR" ] || return 0
	! has systemctl || for unit in penfold.service penfold-control.socket penfold.socket penfold-inetd.socket; do
		if systemctl is-enabled --quiet $unit 2> /dev/null || is_active $unit; then
			units="${units:-} $unit"
		fi
	done
	[ -z "${units:-}" ] || {
		echo "still running or enabled; first, by root: systemctl disable --now$units" >&2
		exit 1
	}
	! answers "$1" || {
		echo "penfoldd is still running; first, by root, stop it: by its rc script, or with SIGTERM" >&2
		exit 1
	}
}

next() {
	[ -z "$DESTDIR" ] || return 0
	if answers "$1"; then
		restart='restart penfoldd'
		! is_active penfold.service || restart='systemctl daemon-reload && systemctl restart penfold'
		echo "penfold is installed. The daemon that runs is still the old one. Next, by root: $restart"
		return
	fi
	option=
	[ "$2" = /etc/penfold/penfold.conf ] || option=" -f $2"
	start=penfoldd$option
	[ ! -d /run/systemd/system ] || start='systemctl enable --now penfold.service penfold-control.socket'
	cat <<-END
		penfold is installed. Next, by root:
		    vi $2    at least hostname, listen and local.domains
		    vi /etc/aliases    a line "root: YOU", so that somebody reads root's mail
		    penfoldd -n$option    checks both, and says what to change
		    $start
		    penfoldctl$option check    says what else is missing, such as DNS records
		    make install-sendmail    lets programs on this host send mail with penfold
		"man 7 penfold" is the entrance to the pages that explain this.
	END
	if has ss && ss -Hltn 'sport = :25' 2> /dev/null | grep -q .; then
		echo 'Another program listens on port 25; see "Replacing another mail transfer agent" in penfold-admin(7).'
	fi
}

# Whether a daemon answers. No mail is queued for nothing.invalid, so the status is then 69.
answers() {
	[ -x "$1" ] || return 1
	status=0
	"$1" flush nothing.invalid > /dev/null 2>&1 || status=$?
	[ $status = 69 ]
}

# Whether systemd runs a unit. In a chroot without systemd, systemctl would say so of every unit.
is_active() {
	[ -d /run/systemd/system ] && systemctl is-active --quiet "$1" 2> /dev/null
}

case ${1:-} in
user) user "${2:-}" "${3:-}" ;;
sendmail) sendmail "$2" "$3" ;;
no-sendmail) no_sendmail "$2" ;;
running) running "${2:-}" ;;
next) next "$2" "$3" ;;
*)
	echo "usage: $0 user | sendmail | no-sendmail | running | next" >&2
	exit 64
	;;
esac
