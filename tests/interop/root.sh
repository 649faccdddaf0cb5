# Sourced by the scripts of the peers: runs a mail server that is unpacked but
# not installed.
#
# The server sees the system's /usr and /etc with its own files laid over them,
# in a mount namespace of its own, and its processes have a process namespace of
# their own: when whoever started it ends, all of them end. Nothing that it does
# outside DIR changes this system. Does not fence the network: it is told to stay
# on loopback.

# accounts DIR NAME...: the system's accounts and one for each NAME, from 5100
# up, and an /etc that names no name server, in DIR/etc.
accounts() {
    local dir=$1 id=5100 name
    shift
    mkdir -p "$dir/etc"
    cp /etc/passwd /etc/group "$dir/etc"
    for name; do
        sed -i "/^$name:/d" "$dir/etc/passwd" "$dir/etc/group"
        echo "$name:x:$id:$id::/nonexistent:/bin/false" >> "$dir/etc/passwd"
        echo "$name:x:$id:" >> "$dir/etc/group"
        id=$((id + 1))
    done
    printf 'passwd: files\ngroup: files\nhosts: files\n' > "$dir/etc/nsswitch.conf"
    printf '127.0.0.1 localhost\n' > "$dir/etc/hosts"
    : > "$dir/etc/resolv.conf"
}

# enter TREE DIR COMMAND...: runs COMMAND in that view of the system. The shell
# does not become COMMAND but stays, as the first process of the namespace, with
# which the others end: the kernel forgets to kill on a parent's death who has
# changed his rights meanwhile, and mail servers do.
enter() {
    TREE=$1 DIR=$2 exec setpriv --pdeathsig KILL unshare --mount --pid --kill-child bash -c '
        mount -t overlay -o "lowerdir=$TREE/usr:/usr" overlay /usr &&
        # What the package has there may be on the system already, and not in the tree.
        etc=$DIR/etc && { [ ! -d "$TREE/etc" ] || etc=$etc:$TREE/etc; } &&
        mount -t overlay -o "lowerdir=$etc:/etc" overlay /etc &&
        "$@"
        exit' enter "${@:3}"
}
