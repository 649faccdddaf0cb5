#!/bin/bash
# cyrus.sh TREE DIR IMAP LMTP: run the Cyrus unpacked in TREE, in the foreground, with everything it
# writes in DIR. IMAP and LMTP are ports of 127.0.0.1; the socket for LMTP is DIR/lmtp. `ready` is
# printed when both accept connections.
#
# The administrator is admin, and every password is right. Clients of LMTP need not log in.
set -eu
. "$(dirname "$0")/root.sh"
tree=$1 dir=$2 imap=$3 lmtp=$4

accounts "$dir" cyrus
mkdir -p "$dir/var" "$dir/spool"
cat > "$dir/imapd.conf" << END
configdirectory: $dir/var
partition-default: $dir/spool
defaultpartition: default
servername: store.razorback
admins: admin
virtdomains: userid
defaultdomain: razorback
unixhierarchysep: yes
allowplaintext: yes
sasl_pwcheck_method: alwaystrue
sasl_mech_list: PLAIN
lmtpsocket: $dir/lmtp
lmtp_over_quota_perm_failure: yes
idlesocket: $dir/var/idle
notifysocket: $dir/var/notify
duplicatesuppression: no
syslog_prefix: cyrus
END
cat > "$dir/cyrus.conf" << END
START {
  recover cmd="/usr/sbin/cyrus ctl_cyrusdb -C $dir/imapd.conf -r"
}
SERVICES {
  imap cmd="/usr/lib/cyrus/bin/imapd -C $dir/imapd.conf" listen="127.0.0.1:$imap" prefork=0
  lmtp cmd="/usr/lib/cyrus/bin/lmtpd -a -C $dir/imapd.conf" listen="127.0.0.1:$lmtp" prefork=0
  lmtpunix cmd="/usr/lib/cyrus/bin/lmtpd -C $dir/imapd.conf" listen="$dir/lmtp" prefork=0
}
END
chown -R 5100:5100 "$dir/var" "$dir/spool"
for port in $imap $lmtp; do
    for _ in {1..300}; do
        sleep 0.1
        ! (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null || break
    done
done && echo ready >&2 &
enter "$tree" "$dir" /usr/lib/cyrus/bin/master -D -C "$dir/imapd.conf" -M "$dir/cyrus.conf" -p "$dir/pid"
