# Rewrites senders with Mail::SRS, the first implementation of SRS.
#
# Each line of standard input is `forward ADDRESS DOMAIN` or `reverse ADDRESS`; for each, a line with
# the resulting address is printed.

use strict;
use warnings;
use Mail::SRS;

my $srs = Mail::SRS->new(Secret => 'the secret of another forwarder');
while (my $line = <STDIN>) {
    my ($what, $address, $domain) = split ' ', $line;
    my $result = eval { $what eq 'forward' ? $srs->forward($address, $domain) : $srs->reverse($address) };
    print defined $result ? $result : "error: $@", "\n";
}
