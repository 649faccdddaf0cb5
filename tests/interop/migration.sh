#!/bin/bash
# migration.sh TREE DIR PORT CASE: run the Postfix unpacked in TREE, in the foreground, with the
# main.cf and the tables in CASE, everything it writes in DIR, and its log on standard error.
#
# It takes mail on 127.0.0.1 port PORT, asks no name server, and believes XCLIENT.
set -eu
. "$(dirname "$0")/postfix-site.sh"
tree=$1 dir=$2 port=$3 case=$4

mkdir -p "$dir/etc/postfix"
cp "$case"/* "$dir/etc/postfix"
# The services are those of this script, not those of the case.
site "$dir" "$port"
echo example.org > "$dir/etc/mailname"
echo '127.0.0.1 localhost' > "$dir/etc/hosts"
settings "$dir" > "$dir/own.cf"
cat >> "$dir/own.cf" << END
maillog_file = /dev/stdout
smtpd_authorized_xclient_hosts = 127.0.0.0/8
smtp_dns_support_level = disabled
smtpd_milters =
non_smtpd_milters =
alias_maps =
smtpd_tls_security_level = none
smtpd_tls_cert_file =
smtpd_tls_key_file =
END
# Two lines for a setting would be logged by each process, too much for the start of postlogd.
sed -n 's/ =.*//p' "$dir/own.cf" | while read -r name; do
    sed -i "/^$name *=/d" "$dir/etc/postfix/main.cf"
done
sed -i 's/\(hash\|btree\):/texthash:/g; s/texttexthash/texthash/g' "$dir/etc/postfix/main.cf"
cat "$dir/own.cf" >> "$dir/etc/postfix/main.cf"

enter "$tree" "$dir" postfix start-fg >&2
