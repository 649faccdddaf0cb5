#!/bin/bash
# opensmtpd.sh TREE DIR PORT BACK: run the OpenSMTPD unpacked in TREE, in the
# foreground, with everything it writes in DIR and its log on standard error.
#
# It takes mail on 127.0.0.1 port PORT. Mail for anybody at peer.test goes into
# the Maildir DIR/mail, save for nobody@peer.test, whom it refuses; mail for
# anywhere else goes to 127.0.0.1 port BACK.
set -eu
. "$(dirname "$0")/root.sh"
tree=$1 dir=$2 port=$3 back=$4

accounts "$dir" opensmtpd opensmtpq reader
mkdir -p "$dir"/{mail,run,spool/smtpd,lib/opensmtpd/empty}
chmod 711 "$dir/spool/smtpd"
chown 5102 "$dir/mail"
echo opensmtpd.test > "$dir/etc/mailname"

cat > "$dir/etc/smtpd.conf" << END
filter nobody phase rcpt-to match rcpt-to { "nobody@peer.test" } reject "550 5.1.1 Nobody is not at home"
listen on 127.0.0.1 port $port hostname opensmtpd.test filter nobody
action here maildir "$dir/mail" virtual { "@" = reader }
action elsewhere relay host "smtp://127.0.0.1:$back" helo opensmtpd.test
match from any for domain "peer.test" action here
match from any for any action elsewhere
END

# Its paths for the queue, the socket and the empty directory are compiled in.
enter "$tree" "$dir" bash -c '
    mount --bind "$DIR/spool" /var/spool && mount --bind "$DIR/lib" /var/lib && mount --bind "$DIR/run" /run &&
    smtpd -dv -T smtp -f /etc/smtpd.conf'
