#!/bin/sh
# registry.sh: makes this machine a host for containers, with the images that
# etc/container/Containerfile takes from a registry: a small system that has what the
# Containerfile calls, and penfold from /usr/local/sbin in place of a compiler. Run by root.
set -eu

main() {
	settings
	dir=$(mktemp -d) && chmod 755 "$dir"
	system "$dir"
	mkdir -p "$dir/built" "$dir/usr/local/bin"
	cp /usr/local/sbin/penfoldd /usr/local/sbin/penfoldctl "$dir/built"
	program '#!/bin/sh' 'mkdir -p target/release && cp /built/* target/release' > "$dir/usr/local/bin/cargo"
	chmod 755 "$dir/usr/local/bin/cargo"
	tar -C "$dir" -c . | podman import -q - docker.io/library/rust:1-bookworm
	podman tag docker.io/library/rust:1-bookworm docker.io/library/debian:bookworm-slim
	rm -r "$dir"
}

# What this machine may not do, Podman does not try.
settings() {
	mount -o remount,bind,rw /proc/sys
	program '[storage]' 'driver = "vfs"' 'runroot = "/run/containers/storage"' \
		'graphroot = "/var/lib/containers/storage"' > /etc/containers/storage.conf
	program '[containers]' 'cgroups = "disabled"' 'default_ulimits = ["nofile=8192:8192", "nproc=4096:4096"]' \
		> /etc/containers/containers.conf
	program '#!/bin/sh' 'BUILDAH_ISOLATION=chroot exec /usr/bin/podman "$@"' > /usr/local/bin/podman
	chmod 755 /usr/local/bin/podman
}

program() {
	printf '%s\n' "$@"
}

# Copies programs and the libraries that they and penfold need.
system() {
	mkdir -p "$1/tmp" "$1/run" "$1/var/mail" "$1/var/spool"
	for part in bin sbin lib lib64; do
		mkdir -p "$1/usr/$part"
		ln -s usr/$part "$1/$part"
	done
	for name in sh make sed install find ln rm mkdir cat touch cp id ls grep env useradd groupadd penfoldd penfoldctl; do
		path=$(command -v $name)
		case $path in */penfold*) ;; *) cp --parents -L "$path" "$1" ;; esac
		ldd "$path" | grep -o '/[^ ]*' | while read -r library; do
			cp --parents -L "$library" "$1"
		done
	done
	cp /lib/*/libnss_* "$1"/usr/lib/*/
	cp --parents /etc/login.defs /etc/nsswitch.conf /etc/ssl/certs/ca-certificates.crt "$1"
	for file in passwd group shadow gshadow; do
		grep -v ^penfold: /etc/$file > "$1/etc/$file"
	done
}

main
