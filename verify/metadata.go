package verify

import (
	"fmt"
	"net/netip"
)

// credentials are where clouds hand out the rights of a host to whoever asks from
// it: the addresses of one link, and those that stand beside them.
var credentials = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("100.100.100.200/32"),
	netip.MustParsePrefix("fd00:ec2::/32"),
}

// refuseCredentials keeps looks away from there, whatever name leads to it: a
// finding shows what the other side says, and is told to the registry. The
// address is one that was looked up already, so that it cannot change any more.
func refuseCredentials(addr string) error {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil // a socket
	}
	for _, p := range credentials {
		if p.Contains(at.Addr().WithZone("").Unmap()) {
			return &failure{Spec, fmt.Errorf("%s: clouds hand out credentials at this address, so no check goes there", addr)}
		}
	}
	return nil
}
