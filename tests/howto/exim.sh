#!/bin/bash
# exim.sh TREE DIR ALIASES: a host, mx.razorback.test, with the Exim unpacked in TREE.
#
# Exim has the configuration of Debian for a host on the Internet. Its daemon runs, messages wait in
# its queue, and jon has got his copy of one of them. Everything that it writes is in DIR. When all is
# ready, DIR/pid has the number of a process of the host, and standard error says so.
set -eu
[ -n "${NAMED:-}" ] || NAMED=yes exec unshare --uts "$0" "$@"
. "${0%/*}/../interop/root.sh"
tree=$1 dir=$2
hostname mx.razorback.test

accounts "$dir" Debian-exim jon
sed -i "s#^jon:.*#jon:x:5101:5101::$dir/home:/bin/sh#" "$dir/etc/passwd"
cp "$3" "$dir/etc/aliases"
printf '127.0.0.1 localhost\n192.0.2.2 mx.razorback.test\n' > "$dir/etc/hosts"
echo razorback.test > "$dir/etc/mailname"
mkdir -p "$dir"/{home,exim4,mail,run/exim4,log/exim4,lib/exim4,spool/exim4}
chown 5101:5101 "$dir/home"
chown -R 5100:5100 "$dir"/{run,log,lib,spool}/exim4
chgrp mail "$dir/mail"
chmod 2775 "$dir/mail"
cat > "$dir/settings" << END
dc_eximconfig_configtype='internet'
dc_other_hostnames='razorback.test'
dc_local_interfaces='127.0.0.1'
dc_readhost=''
dc_relay_domains='backup.test'
dc_minimaldns='true'
dc_relay_nets='192.0.2.0/24'
dc_smarthost=''
CFILEMODE='644'
dc_use_split_config='false'
dc_hide_mailname=''
dc_mailname_in_oh='true'
dc_localdelivery='mail_spool'
END

message() {
    printf 'Subject: %s\n\nhello\n' "$1" | exim4 "${@:2}"
}

host() {
    set -e
    for place in mail spool log lib; do mount --bind "$DIR/$place" /var/$place; done
    mount --bind "$DIR/run" /run
    cp -a /etc/exim4/. "$DIR/exim4"
    cp "$DIR/settings" "$DIR/exim4/update-exim4.conf.conf"
    mount --bind "$DIR/exim4" /etc/exim4
    update-exim4.conf 2> /dev/null
    # Exim does not become a daemon by itself if its parent is process 1.
    exim4 -bdf &
    message one -odf -f jon@razorback.test greg@example.net jon@razorback.test
    message two -odq -f greg@example.net info@razorback.test
    message three -odq -f '<>' root@razorback.test
    exim4 -Mf $(exim4 -bp | awk '$4 == "<>" { print $3 }') > "$DIR/frozen"
    message four -odq -f jon@razorback.test elvis@razorback.test
    read -r pid rest < /proc/self/stat
    echo "$pid" > "$DIR/pid"
    echo ready >&2
    sleep infinity
}

export -f message host
enter "$tree" "$dir" host
