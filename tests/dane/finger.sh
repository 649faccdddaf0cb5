#!/bin/bash
# finger.sh TREE DIR DOMAIN...: what posttls-finger of the Postfix in TREE says about the hosts of
# each DOMAIN, after a line `= DOMAIN`. The name server is 127.0.0.1. Writes only to DIR.
set -eu
. "$(dirname "$0")/../interop/root.sh"
tree=$1 dir=$2
shift 2

accounts "$dir" postfix postdrop
mkdir -p "$dir/etc/postfix"
printf 'nameserver 127.0.0.1\noptions edns0 trust-ad\n' > "$dir/etc/resolv.conf"
cat > "$dir/etc/postfix/main.cf" << END
compatibility_level = 3.6
myhostname = postfix.test
inet_protocols = ipv4
smtp_dns_support_level = dnssec
END

# All at once: most of them wait for a name server or a host.
fingers() {
    for domain; do
        posttls-finger -c -t 10 -T 10 -l dane -L summary,verbose "$domain" > "$DIR/finger.$domain" 2>&1 < /dev/null &
    done
    wait
    for domain; do
        echo "= $domain"
        cat "$DIR/finger.$domain"
    done
}
export -f fingers
enter "$tree" "$dir" bash -c 'fingers "$@"' fingers "$@"
