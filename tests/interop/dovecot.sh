#!/bin/bash
# dovecot.sh TREE CONF: become the Dovecot unpacked in TREE, in the foreground, with
# the configuration CONF.
#
# As for the mail servers, see root.sh; but without processes of its own namespace,
# so that a signal to this process is one to Dovecot, which ends its children itself.
set -eu
. "$(dirname "$0")/root.sh"
tree=$1 conf=$2 dir=$(dirname "$2")/dovecot.root

accounts "$dir" dovecot dovenull
export tree dir
exec unshare --mount bash -c '
    mount -t overlay -o "lowerdir=$tree/usr:/usr" overlay /usr &&
    mount -t overlay -o "lowerdir=$dir/etc:$tree/etc:/etc" overlay /etc &&
    exec dovecot -F -c "$1"' dovecot "$conf"
