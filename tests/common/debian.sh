#!/bin/sh
# debian.sh base DIR: makes a minimal Debian system of this host's release in DIR.
# debian.sh hold BASE ARCHIVES DIR NAME: a machine with a copy of BASE, until standard input ends.
# debian.sh held, watch and boot: parts of `hold`.
#
# See debian.rs. `hold` makes namespaces, and systemd becomes the first process of the machine.
# All that it writes is in memory and ends with the machine. DIR is an empty directory.
set -eu

base() {
	. /etc/os-release
	sources=/etc/apt/sources.list.d/debian.sources
	[ -f $sources ] || sources=/etc/apt/sources.list
	# The lists of packages stay, so that packages can be installed without new ones.
	mmdebstrap --quiet --variant=minbase --include=systemd-sysv,dbus,iproute2,ca-certificates \
		--aptopt='APT::Install-Recommends "false"' --aptopt='APT::Sandbox::User "root"' \
		--dpkgopt=force-unsafe-io --skip=cleanup/apt/lists \
		"$VERSION_CODENAME" "$1" - < $sources
	rm -f "$1/etc/resolv.conf"
}

hold() {
	exec unshare -m "$0" held "$@"
}

held() {
	base=$1 archives=$2 dir=$3 name=$4
	exec 3<&0 < /dev/null
	mount -t cgroup2 cgroup2 "$dir"
	mkdir -p "$dir/penfold-$$"
	echo $$ > "$dir/penfold-$$/cgroup.procs"
	umount "$dir"
	mount -t tmpfs -o mode=755 tmpfs "$dir"
	mkdir "$dir/upper" "$dir/work" "$dir/root"
	mount -t overlay -o "lowerdir=$base,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/root"
	mount --bind "$archives" "$dir/root/var/cache/apt/archives"
	echo "$name" > "$dir/root/etc/hostname"
	printf '%s\n' '127.0.0.1 localhost' '::1 localhost ip6-localhost' "192.0.2.25 $name ${name%%.*}" > "$dir/root/etc/hosts"
	echo nameserver 192.0.2.1 > "$dir/root/etc/resolv.conf"
	cp /etc/resolv.conf "$dir/root/run/host.resolv.conf"
	mount -t tmpfs -o mode=755 tmpfs /run
	mkdir /run/cgroup
	mount -t cgroup2 cgroup2 /run/cgroup
	network
	setsid ip netns exec world "$0" watch $$ <&3 3<&- &
	exec ip netns exec machine unshare -m -C -p -u -i --fork --kill-child "$0" boot "$dir/root" 3<&-
}

# Kills the holder, which is the parent of the first process of the machine, when standard input
# ends. The control group of the machine can be removed when all its processes have ended.
watch() {
	echo 0 > /run/cgroup/cgroup.procs
	cat > /dev/null
	kill -KILL "$1" || :
	while ! find "/run/cgroup/penfold-$1" -depth -type d -exec rmdir {} + 2> /dev/null; do
		sleep 0.1
	done
}

# The machine is 192.0.2.25, and all that the test plays is in the world beside it.
network() {
	ip netns add world
	ip netns add machine
	ip -n world link set lo up
	ip -n machine link set lo up
	ip -n world link add world type veth peer name eth0 netns machine
	ip -n world address add 192.0.2.1/24 dev world
	ip -n machine address add 192.0.2.25/24 dev eth0
	ip -n world link set world up
	ip -n machine link set eth0 up
	ip -n machine route add default via 192.0.2.1
}

boot() {
	cd "$1"
	mount -t proc proc proc
	mount --bind proc/sys proc/sys
	mount -o remount,bind,ro proc/sys
	mount -t sysfs -o ro sysfs sys
	mount -t cgroup2 cgroup2 sys/fs/cgroup
	mount -t tmpfs -o mode=755 tmpfs dev
	for node in null zero full random urandom tty; do
		touch dev/$node
		mount --bind /dev/$node dev/$node
	done
	mkdir dev/pts dev/shm
	mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
	ln -s pts/ptmx dev/ptmx
	ln -s /proc/self/fd dev/fd
	for end in 0.stdin 1.stdout 2.stderr; do
		ln -s /proc/self/fd/${end%.*} dev/${end#*.}
	done
	cp run/host.resolv.conf dev/
	mount -t tmpfs -o mode=755 tmpfs run
	mkdir run/host
	mv dev/host.resolv.conf run/host/resolv.conf
	hostname "$(cat etc/hostname)"
	mkdir -p run/old
	pivot_root . run/old
	umount -l /run/old
	rmdir /run/old
	exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
		setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio /sbin/init --log-target=console --show-status=no
}

"$@"
