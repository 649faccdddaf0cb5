#!/bin/bash
# postfix.sh TREE DIR PORT BACK: run the Postfix unpacked in TREE, in the
# foreground, with everything it writes in DIR and its log on standard error.
#
# It takes mail on 127.0.0.1 port PORT. Mail for anybody at peer.test goes into
# the Maildir DIR/mail, save for nobody@peer.test, whom it refuses; mail for
# anywhere else goes to 127.0.0.1 port BACK.
set -eu
. "$(dirname "$0")/root.sh"
tree=$1 dir=$2 port=$3 back=$4

accounts "$dir" postfix postdrop reader
mkdir -p "$dir"/{etc/postfix,queue,data,mail}
chown 5100 "$dir/data"
chown 5102 "$dir/mail"

cat > "$dir/etc/postfix/main.cf" << END
compatibility_level = 3.6
queue_directory = $dir/queue
data_directory = $dir/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = /dev/stdout
myhostname = postfix.test
mydestination =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access inline:{ {nobody@peer.test = 550 5.1.1 Nobody is not at home} }
virtual_mailbox_domains = peer.test
virtual_mailbox_base = $dir
virtual_mailbox_maps = static:mail/
virtual_uid_maps = static:5102
virtual_gid_maps = static:5102
relayhost = [127.0.0.1]:$back
END

cat > "$dir/etc/postfix/master.cf" << END
$port      inet  n - n -    - smtpd
pickup     unix  n - n 60   1 pickup
cleanup    unix  n - n -    0 cleanup
qmgr       unix  n - n 300  1 qmgr
rewrite    unix  - - n -    - trivial-rewrite
bounce     unix  - - n -    0 bounce
defer      unix  - - n -    0 bounce
trace      unix  - - n -    0 bounce
flush      unix  n - n 1000? 0 flush
proxymap   unix  - - n -    - proxymap
smtp       unix  - - n -    - smtp
relay      unix  - - n -    - smtp
showq      unix  n - n -    - showq
error      unix  - - n -    - error
retry      unix  - - n -    - error
virtual    unix  - n n -    - virtual
anvil      unix  - - n -    1 anvil
scache     unix  - - n -    1 scache
postlog    unix-dgram n - n - 1 postlogd
END

enter "$tree" "$dir" postfix start-fg >&2
