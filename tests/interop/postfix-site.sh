# Sourced by the scripts that run Postfix: what they share.
. "${BASH_SOURCE%/*}/root.sh"

# site DIR PORT: accounts, directories, and a master.cf that takes mail on 127.0.0.1 port PORT.
# The accounts are postfix (5100), postdrop (5101) and reader (5102).
site() {
    accounts "$1" postfix postdrop reader
    mkdir -p "$1"/{etc/postfix,queue,data}
    chown 5100 "$1/data"
    sed "s/^PORT/$2/" "${BASH_SOURCE%/*}/master.cf" > "$1/etc/postfix/master.cf"
}

# settings DIR: the lines that every main.cf has.
settings() {
    cat << END
queue_directory = $1/queue
data_directory = $1/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
END
}
