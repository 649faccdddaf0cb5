#!/bin/bash
# filters.sh NAME TREE DIR PORT: run the filter NAME (rspamd, opendkim, opendmarc, postgrey
# or policyd-spf) unpacked in TREE, in the foreground, with everything it writes in DIR.
# It listens on 127.0.0.1 port PORT, and `ready` is printed when it does.
#
# OpenDKIM signs for example.org with the key KEY and the selector s. postgrey
# delays mail for an hour. For OpenDMARC, reject.test is the only domain with a policy.
set -eu
. "$(dirname "$0")/root.sh"
name=$1 tree=$2 dir=$3 port=$4

accounts "$dir" _rspamd postgrey
mkdir -p "$dir/var" "$dir/etc/rspamd"
chown 5100 "$dir/var"
announce() {
    for _ in {1..300}; do
        sleep 0.1
        ! (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null || { echo ready >&2 && return; }
    done
}
announce &

case $name in
rspamd)
    # A short list of top-level domains, because compiling the whole one takes long.
    printf 'com\nnet\norg\ntest\n' > "$dir/etc/rspamd/domains"
    cat > "$dir/etc/rspamd/rspamd.conf" << END
options {
    filters = "";
    enable_test_patterns = true;
    url_tld = "$dir/etc/rspamd/domains";
    disable_hyperscan = true;
    hs_cache_dir = "$dir/var";
    tempdir = "$dir/var";
    control_socket = "$dir/var/control mode=0600";
    stats_file = "$dir/var/stats";
    history_file = "$dir/var/history";
    dns { nameserver = ["127.0.0.1"]; timeout = 100ms; retransmits = 1; }
}
logging { type = "console"; level = "notice"; }
worker "rspamd_proxy" {
    bind_socket = "127.0.0.1:$port";
    count = 1;
    milter = yes;
    upstream "local" { default = yes; self_scan = yes; }
}
actions { reject = 15; add_header = 6; }
END
    enter "$tree" "$dir" rspamd -f -i -u _rspamd -g _rspamd -c "$dir/etc/rspamd/rspamd.conf"
    ;;
opendkim)
    cat > "$dir/opendkim.conf" << END
Syslog no
Mode s
Domain example.org
Selector s
KeyFile $KEY
RequireSafeKeys no
Canonicalization relaxed/relaxed
OversignHeaders From
Socket inet:$port@127.0.0.1
Background no
END
    enter "$tree" "$dir" opendkim -f -x "$dir/opendkim.conf"
    ;;
opendmarc)
    printf '_dmarc.reject.test v=DMARC1; p=reject\n' > "$dir/policies"
    # Without a list, it ignores clients on loopback addresses.
    printf '192.0.2.1\n' > "$dir/ignored"
    cat > "$dir/opendmarc.conf" << END
Syslog false
AuthservID opendmarc.test
TrustedAuthservIDs razorback.test
IgnoreHosts $dir/ignored
TestDNSData $dir/policies
RequiredHeaders true
RejectFailures true
Socket inet:$port@127.0.0.1
Background false
END
    enter "$tree" "$dir" opendmarc -f -c "$dir/opendmarc.conf"
    ;;
postgrey)
    chown 5101 "$dir/var"
    enter "$tree" "$dir" postgrey --inet="127.0.0.1:$port" --delay=3600 --dbdir="$dir/var" --user=postgrey \
        --group=postgrey --syslog-facility=local7
    ;;
policyd-spf)
    # The program serves one connection on standard input, as Postfix's spawn(8) starts it.
    enter "$tree" "$dir" /usr/bin/python3 -c '
import socket, subprocess, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = server.accept()
    subprocess.Popen(["policyd-spf"], stdin=connection, stdout=connection)
    connection.close()
' "$port"
    ;;
esac
