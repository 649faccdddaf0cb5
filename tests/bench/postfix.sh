#!/bin/bash
# postfix.sh TREE DIR PORT NEXT: run the Postfix unpacked in TREE, in the
# foreground, with everything it writes in DIR, as something to compare with.
#
# It takes mail on 127.0.0.1 port PORT. Mail for razorback.test goes into the
# Maildirs that DIR/boxes names, below DIR/mail; mail for anywhere else goes to
# 127.0.0.1 port NEXT, or, where NEXT is MX, to the exchangers that a name server
# on 127.0.0.1 knows, by 200 processes and with a retry every 20 seconds. Its log
# goes nowhere, as penfold's does. What is not set here is as Postfix comes, but for
# limits that would slow it down. Where STORE is set, mail for razorback.test goes by
# LMTP to the Unix socket of that name.
set -eu
. "$(dirname "$0")/../interop/postfix-site.sh"
tree=$1 dir=$2 port=$3 next=$4

site "$dir" "$port"
mkdir -p "$dir/mail"
chown 5102 "$dir/mail"

settings "$dir" > "$dir/etc/postfix/main.cf"
cat >> "$dir/etc/postfix/main.cf" << END
compatibility_level = 3.6
myhostname = postfix.test
mydestination =
local_recipient_maps =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
virtual_mailbox_domains = razorback.test
virtual_mailbox_base = $dir/mail
virtual_mailbox_maps = texthash:$dir/boxes
virtual_uid_maps = static:5102
virtual_gid_maps = static:5102
virtual_mailbox_limit = 0
mailbox_size_limit = 0
message_size_limit = 0
in_flow_delay = 0
END
[ -z "${STORE-}" ] || echo "virtual_transport = lmtp:unix:$STORE" >> "$dir/etc/postfix/main.cf"
if [ "$next" = MX ]; then
    echo nameserver 127.0.0.1 > "$dir/etc/resolv.conf"
    cat << END
default_process_limit = 200
minimal_backoff_time = 20s
maximal_backoff_time = 20s
queue_run_delay = 20s
END
else
    cat << END
default_process_limit = 300
smtp_dns_support_level = disabled
relayhost = [127.0.0.1]:$next
END
fi >> "$dir/etc/postfix/main.cf"

# Within its namespace there is no system log.
enter "$tree" "$dir" bash -c 'mount --bind /dev/null /dev/log 2> /dev/null; postfix start-fg' > /dev/null 2>&1
