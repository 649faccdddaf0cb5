#!/bin/bash
# postfix.sh TREE DIR PORT BACK: run the Postfix unpacked in TREE, in the
# foreground, with everything it writes in DIR and its log on standard error.
#
# It takes mail on 127.0.0.1 port PORT. Mail for anybody at peer.test goes into
# the Maildir DIR/mail, save for nobody@peer.test, whom it refuses; mail for
# anywhere else goes to 127.0.0.1 port BACK, with XFORWARD and TLS where that is offered,
# or, with PEER_LMTP, by LMTP.
# With PEER_TLS it offers STARTTLS with the certificate PEER_TLS.pem and its .key;
# with PEER_AUTH it takes mail only under TLS, from whom Dovecot knows at that socket.
# With PEER_DANE it sends mail to the hosts of the DNS, by DANE, and asks 127.0.0.1.
# With PEER_ADDRESS it takes mail at that address, from anywhere.
set -eu
. "$(dirname "$0")/postfix-site.sh"
tree=$1 dir=$2 port=$3 back=$4

site "$dir" "$port"
mkdir -p "$dir/mail"
chown 5102 "$dir/mail"

settings "$dir" > "$dir/etc/postfix/main.cf"
cat >> "$dir/etc/postfix/main.cf" << END
compatibility_level = 3.6
maillog_file = /dev/stdout
myhostname = postfix.test
mydestination =
local_recipient_maps =
mynetworks = 127.0.0.0/8
smtpd_authorized_xclient_hosts = 127.0.0.0/8
smtp_dns_support_level = disabled
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access inline:{ {nobody@peer.test = 550 5.1.1 Nobody is not at home} }
virtual_mailbox_domains = peer.test
virtual_mailbox_base = $dir
virtual_mailbox_maps = static:mail/
virtual_uid_maps = static:5102
virtual_gid_maps = static:5102
relayhost = [127.0.0.1]:$back
smtp_send_xforward_command = yes
smtp_tls_security_level = may
END

if [ -n "${PEER_LMTP:-}" ]; then
    echo "default_transport = lmtp:inet:127.0.0.1:$back" >> "$dir/etc/postfix/main.cf"
fi
if [ -n "${PEER_TLS:-}" ]; then
    cat >> "$dir/etc/postfix/main.cf" << END
smtpd_tls_security_level = may
smtpd_tls_chain_files = $PEER_TLS.key, $PEER_TLS.pem
smtpd_tls_received_header = yes
END
fi
if [ -n "${PEER_AUTH:-}" ]; then
    cat >> "$dir/etc/postfix/main.cf" << END
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = $PEER_AUTH
smtpd_sasl_authenticated_header = yes
smtpd_sender_restrictions = permit_sasl_authenticated, reject
END
fi

if [ -n "${PEER_DANE:-}" ]; then
    printf 'nameserver 127.0.0.1\noptions edns0 trust-ad\n' > "$dir/etc/resolv.conf"
    sed -i -E '/^(relayhost|smtp_dns_support_level|smtp_tls_security_level) /d' "$dir/etc/postfix/main.cf"
    cat >> "$dir/etc/postfix/main.cf" << END
relayhost =
smtp_dns_support_level = dnssec
smtp_tls_security_level = dane
smtp_tls_loglevel = 1
END
fi
if [ -n "${PEER_ADDRESS:-}" ]; then
    sed -i -E '/^(inet_interfaces|mynetworks) /d' "$dir/etc/postfix/main.cf"
    cat >> "$dir/etc/postfix/main.cf" << END
inet_interfaces = $PEER_ADDRESS
mynetworks = 0.0.0.0/0
END
fi

enter "$tree" "$dir" postfix start-fg >&2
