#!/bin/sh
# dist.sh DIRECTORY: writes the archive of the sources, penfold-VERSION.tar.gz, and a file with its
# SHA-256 sum. Used by `make dist`.
#
# The archive has the files of the last commit. In vendor/ it has the packages of Cargo.lock, each
# with the SHA-256 sums of its files, so that cargo builds without a network. Of packages that only
# other systems need, such as Windows, it has the manifest alone. The same commit always gives the
# same archive. Needs git and GNU tar.
set -eu

systems='x86_64-unknown-linux-gnu x86_64-unknown-linux-musl aarch64-unknown-linux-gnu
aarch64-unknown-linux-musl riscv64gc-unknown-linux-gnu x86_64-unknown-freebsd x86_64-unknown-openbsd'
empty=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855

main() {
    mkdir -p "$1"
    place=$(cd "$1" && pwd)
    [ -e .git ] || fail 'it needs a git repository: an unpacked archive cannot be packed again'
    version=$(git show HEAD:Cargo.toml | sed -n 's/^version = "\(.*\)"/\1/p')
    date=$(git log -1 --format=%ct)
    name=penfold-$version
    work=$(mktemp -d "$place/new.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM
    git archive --prefix="$name/" HEAD | tar -x -C "$work"
    (cd "$work/$name" && vendor)
    tar -c -C "$work" --sort=name --format=gnu --mtime="@$date" --owner=0 --group=0 --numeric-owner \
        --mode=u+rw,go=rX,a-s "$name" | gzip -9 -n > "$work/$name.tar.gz"
    (cd "$work" && sha256sum "$name.tar.gz" > "$name.tar.gz.sha256")
    mv "$work/$name.tar.gz" "$work/$name.tar.gz.sha256" "$place"
    cat "$place/$name.tar.gz.sha256"
}

fail() {
    echo "dist: $*" >&2
    exit 1
}

vendor() {
    ${CARGO:-cargo} vendor -q --locked --versioned-dirs vendor > /dev/null
    mkdir -p .cargo
    printf '[source.%s]\n%s = "%s"\n' crates-io replace-with vendor vendor directory vendor >> .cargo/config.toml
    for system in $systems; do
        ${CARGO:-cargo} tree -q --locked --offline --workspace --all-features -e all --target "$system" --prefix none \
            -f '{p}'
    done | sed -n 's/^\([^ ]*\) v\([^ ]*\).*/\1-\2/p' | sort -u > ../needed
    for package in vendor/*; do
        grep -qxF "${package#vendor/}" ../needed || shorten "$package"
    done
}

# shorten DIRECTORY: leaves the manifest of a package. Cargo wants to read it, and a library.
shorten() {
    sums=$1/.cargo-checksum.json
    package=$(sed -n 's/.*"package":"\([0-9a-f]*\)".*/\1/p' "$sums")
    find "$1" -mindepth 1 -maxdepth 1 ! -name Cargo.toml -exec rm -rf {} +
    mkdir "$1/src"
    : > "$1/src/lib.rs"
    printf '{"files":{"Cargo.toml":"%s","src/lib.rs":"%s"},"package":"%s"}' \
        "$(sha256sum < "$1/Cargo.toml" | cut -d ' ' -f 1)" $empty "$package" > "$sums"
}

main "$@"
