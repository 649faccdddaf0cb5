#!/bin/bash
# exim.sh TREE DIR PORT BACK: run the Exim unpacked in TREE, in the foreground,
# with everything it writes in DIR and its log on standard error.
#
# It takes mail on 127.0.0.1 port PORT. Mail for anybody at peer.test goes into
# the Maildir DIR/mail, save for nobody@peer.test, whom it refuses; mail for
# anywhere else goes to 127.0.0.1 port BACK. With PEER_TLS it takes mail only under
# TLS, with the certificate PEER_TLS.pem and its .key, and from jon, by AUTH PLAIN.
set -eu
. "$(dirname "$0")/root.sh"
tree=$1 dir=$2 port=$3 back=$4

accounts "$dir" Debian-exim reader
mkdir -p "$dir"/{etc/exim4,spool,mail}
chown 5100:5100 "$dir/spool"
chown 5101 "$dir/mail"

tls='tls_advertise_hosts ='
if [ -n "${PEER_TLS:-}" ]; then
    tls="tls_advertise_hosts = *
tls_certificate = $PEER_TLS.pem
tls_privatekey = $PEER_TLS.key
acl_smtp_mail = mail"
fi

# Exim trusts no configuration but this one, and root's.
cat > "$dir/etc/exim4/exim4.conf" << END
primary_hostname = exim.test
spool_directory = $dir/spool
log_file_path = $dir/spool/log-%s
daemon_smtp_ports = $port
daemon_startup_retries = 0
local_interfaces = 127.0.0.1
acl_smtp_rcpt = rcpt
acl_smtp_data = data
host_lookup =
dsn_advertise_hosts = *
rfc1413_query_timeout = 0s
$tls
never_users =
keep_environment =

begin acl
mail:
  deny  ! authenticated = *
  accept
rcpt:
  deny  recipients = nobody@peer.test
        message    = 550 5.1.1 Nobody is not at home
  accept
data:
  accept

begin routers
elsewhere:
  driver = manualroute
  domains = ! peer.test
  transport = smtp
  route_list = * 127.0.0.1::$back
  self = send
  no_more
here:
  driver = accept
  transport = maildir

begin transports
smtp:
  driver = smtp
  hosts_try_fastopen =
maildir:
  driver = appendfile
  directory = $dir/mail
  maildir_format
  user = reader
  group = reader

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = \${if and{{eq{\$auth2}{jon}}{eq{\$auth3}{hush}}}}
  server_set_id = \$auth2
  server_advertise_condition = \${if def:tls_in_cipher}

begin retry
* * F,2h,15m
END

# -v: the log goes to standard error as well.
enter "$tree" "$dir" exim4 -bdf -v -q30m
