#!/bin/bash
# sendmail.sh TREE DIR ALIASES VIRTUAL: a host, mx.razorback.test, with the sendmail unpacked in TREE.
#
# sendmail has the configuration of Debian, and VIRTUAL as its virtusertable. Its daemon runs, messages
# wait in both queues, and the host greg.test has got its copy of one of them. Everything that it writes
# is in DIR. When all is ready, DIR/pid has the number of a process of the host, and standard error
# says so.
set -eu
[ -n "${NAMED:-}" ] || NAMED=yes exec unshare --uts "$0" "$@"
. "${0%/*}/../interop/root.sh"
tree=$1 dir=$2
hostname mx.razorback.test

accounts "$dir" smmta smmsp jon
mkdir -p "$dir"/{mail,run/sendmail/{mta,msp},lib/sendmail/host_status,spool/mqueue,spool/mqueue-client}
cp -a "$tree/etc/mail/." "$dir/mail"
cp "$tree"/usr/share/sendmail/cf/debian/*.mc "$3" "$4" "$dir/mail"
chown 5100:5101 "$dir/spool/mqueue"
chown 5101:5101 "$dir/spool/mqueue-client"
chmod 2750 "$dir/spool/mqueue"
chmod 2770 "$dir/spool/mqueue-client"
# There is no name server.
cat > "$dir/etc/hosts" << END
127.0.0.1 localhost
192.0.2.2 mx.razorback.test
192.0.2.2 razorback.test
192.0.2.3 example.net
127.0.0.3 greg.test
END
echo 'hosts files' > "$dir/mail/service.switch"
printf '%s\n' razorback.test shop.test > "$dir/mail/local-host-names"

message() {
    printf 'Subject: %s\n\nhello\n' "$1" | sendmail "${@:2}"
}

configure() {
    mkdir -p m4
    touch m4/dialup.m4 m4/provider.m4 access relay-domains trusted-users
    sed -i 's/^MAILER_DEFINITIONS/FEATURE(`virtusertable'"'"')dnl\n&/' sendmail.mc
    m4 sendmail.mc > sendmail.cf
    m4 submit.mc > submit.cf
    /usr/libexec/sendmail/makemap hash access < access
    /usr/libexec/sendmail/makemap hash virtusertable < virtual
    sendmail -bi > /dev/null
}

host() {
    set -e
    for place in spool lib; do mount --bind "$DIR/$place" /var/$place; done
    mount --bind "$DIR/run" /run
    mount --bind "$DIR/mail" /etc/mail
    PATH=/usr/libexec/sendmail:$PATH
    cd /etc/mail
    configure
    message one -Am -odi -f jon@razorback.test greg@example.net ann@greg.test
    message two -Am -odq -f greg@example.net info@razorback.test
    message three -Am -odq -f '<>' root@razorback.test
    message four -Am -odq -f jon@razorback.test bin@razorback.test
    message five -Ac -odq -f jon@razorback.test sales@razorback.test
    sendmail -bd
    read -r pid rest < /proc/self/stat
    echo "$pid" > "$DIR/pid"
    echo ready >&2
    sleep infinity
}

export -f message configure host
enter "$tree" "$dir" host
